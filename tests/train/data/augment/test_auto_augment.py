"""The operations of the policies against Pillow's, and their frequencies."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from train.data.augment.auto_augment import (
    GEOMETRY,
    NARROW,
    OPERATIONS,
    WIDE,
    apply_operation,
    rand_augment,
    trivial_augment,
)
from train.data.augment.pipeline import Augment, example_keys

HEIGHT, WIDTH = 16, 24
operate = partial(jax.jit, static_argnums=0)(apply_operation)


def photo():
    """Return an image with smooth and noisy regions."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([8 * x + y, 90 + 60 * np.sin(x / 3 + y / 2), 4 * y + 20], -1)
    noise = rng.normal(size=(HEIGHT, WIDTH, 3)) * np.linspace(0, 25, WIDTH)[:, None]
    return np.clip(smooth + noise, 0, 230).astype(np.uint8)


def ours(space, name, strength, sign=1.0, image=None):
    image = photo() if image is None else image
    operation = float(OPERATIONS.index(name))
    return np.asarray(operate(space, image, operation, strength, sign)).astype(int)


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "color": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancements_match_pillow(name):
    for space, reach in ((WIDE, 0.99), (NARROW, 0.9)):
        for strength, sign in ((0, 1), (0.2, 1), (0.7, -1), (1, 1), (1, -1)):
            enhancer = ENHANCERS[name](Image.fromarray(photo()))
            theirs = np.asarray(enhancer.enhance(1 + sign * strength * reach))
            # Pillow blends with a gray image of whole levels and a whole mean.
            np.testing.assert_allclose(ours(space, name, strength, sign), theirs, atol=1)


def test_posterize_solarize_autocontrast_and_equalize_match_pillow():
    image = Image.fromarray(photo())
    for strength in (0, 0.3, 0.6, 1):
        theirs = ImageOps.posterize(image, 8 - round(6 * strength))
        np.testing.assert_array_equal(ours(WIDE, "posterize", strength), theirs)
        theirs = ImageOps.posterize(image, 8 - round(4 * strength))
        np.testing.assert_array_equal(ours(NARROW, "posterize", strength), theirs)
        theirs = ImageOps.solarize(image, 255 * (1 - strength))
        np.testing.assert_array_equal(ours(WIDE, "solarize", strength), theirs)
    np.testing.assert_array_equal(ours(WIDE, "equalize", 0.5), ImageOps.equalize(image))
    large = np.tile(photo(), (2, 3, 1))  # several pixels per level
    theirs = ImageOps.equalize(Image.fromarray(large))
    np.testing.assert_array_equal(ours(WIDE, "equalize", 0.5, image=large), theirs)
    np.testing.assert_allclose(
        ours(WIDE, "autocontrast", 0.5), ImageOps.autocontrast(image), atol=1
    )
    np.testing.assert_array_equal(ours(WIDE, "identity", 0.5), image)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_images_of_one_or_two_levels(name):
    for levels in ((7, 7), (0, 0), (255, 255), (10, 200)):
        image = np.full((HEIGHT, WIDTH, 3), levels[0], np.uint8)
        image[3] = levels[1]
        theirs = getattr(ImageOps, name)(Image.fromarray(image))
        np.testing.assert_array_equal(ours(WIDE, name, 0.5, image=image), theirs)


# The largest magnitudes in TrivialAugment's wide space and in RandAugment's.
REACHES = {
    WIDE: {"shear": 0.99, "rotate": 135, "translate_x": 32, "translate_y": 32},
    NARROW: {
        "shear": 0.3,
        "rotate": 30,
        "translate_x": 150 / 331 * WIDTH,
        "translate_y": 150 / 331 * HEIGHT,
    },
}


def pillow_affine(space, name, strength, sign):
    """Return Pillow's six coefficients, from a position in the result to one in the image."""
    kind = name if name.startswith("translate") else name.split("_")[0]
    amount = strength * sign * REACHES[space][kind]
    if name == "rotate":
        turn = np.deg2rad(amount)
        cos, sin = np.cos(turn), np.sin(turn)
        x, y = WIDTH / 2, HEIGHT / 2
        return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
    return {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, -int(amount), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -int(amount)),
    }[name]


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometric_operations_match_pillow(name):
    for space in (WIDE, NARROW):
        for strength, sign in ((0, 1), (0.13, 1), (0.5, -1), (1, 1), (1, -1)):
            a, b, c, d, e, f = pillow_affine(space, name, strength, sign)
            image = Image.fromarray(photo())
            theirs = image.transform(
                image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
            )
            result = ours(space, name, strength, sign)
            y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
            source = np.stack([a * x + b * y + c, d * x + e * y + f])
            size = np.array([WIDTH, HEIGHT])[:, None, None]
            # Pillow does not blend between the outermost pixel centers and the black outside.
            inside = ((source > 0.6) & (source < size - 0.6)).all(0)
            outside = ((source < -0.6) | (source > size + 0.6)).any(0)
            assert (inside | outside).mean() > 0.8
            np.testing.assert_allclose(result[inside], np.asarray(theirs)[inside], atol=1)
            assert (result[outside] == 0).all()


@pytest.mark.parametrize("degrees", [30, 135, -135])
def test_rotation_matches_pillow(degrees):
    """Counterclockwise about the center; without the border, where Pillow does not blend."""
    image = Image.fromarray(photo())
    theirs = np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR))
    white = Image.new("L", image.size, 255)
    inside = white.rotate(degrees).filter(ImageFilter.MinFilter(5))
    inside = np.pad(np.asarray(inside)[2:-2, 2:-2] == 255, 2)
    result = ours(WIDE, "rotate", abs(degrees) / 135, np.sign(degrees))
    assert inside.sum() > 50
    np.testing.assert_allclose(result[inside], theirs[inside], atol=1)


@pytest.mark.parametrize(
    "policy, strengths",
    [(trivial_augment(), np.arange(31) / 30), (rand_augment(1, 12), [12 / 30])],
    ids=["trivial", "rand"],
)
def test_all_operations_are_equally_frequent(policy, strengths):
    count, image = 4000, photo()
    outcomes = [
        (name, ours(policy.space, name, strength, sign).astype(np.int16))
        for name in OPERATIONS
        for strength in strengths
        for sign in (-1.0, 1.0)
    ]
    names, results = np.array([name for name, _ in outcomes]), np.stack([r for _, r in outcomes])
    # Operations with (up to rounding) each outcome: weak ones leave the image unchanged.
    near = lambda result: (np.abs(results - result).max((1, 2, 3)) <= 1).nonzero()[0]  # noqa: E731
    unique = np.array([len(set(names[near(result)])) == 1 for result in results])

    images = np.broadcast_to(image, (count, *image.shape))
    keys = example_keys(0, 0, jnp.arange(count))
    augment = jax.jit(Augment(policies=(policy,)))
    results_of_policy = np.asarray(augment(images, keys)).astype(np.int16)
    distinct, counts = np.unique(results_of_policy, axis=0, return_counts=True)
    matches = [near(result) for result in distinct]
    assert min(map(len, matches)) > 0
    for name in OPERATIONS:
        expected = count / len(OPERATIONS) * unique[names == name].mean()
        whole = [set(names[match]) == {name} for match in matches]
        assert abs(counts[whole].sum() - expected) <= 4.5 * np.sqrt(expected), name
        assert expected > 100 or name == "identity"
    # All strengths with both signs, except for a few by chance.
    turns = set(np.concatenate(matches)) & set((names == "rotate").nonzero()[0])
    assert len(turns) > 0.9 * 2 * len(strengths)


def test_operations_are_applied_in_sequence():
    count = 1000
    images = np.broadcast_to(photo(), (count, HEIGHT, WIDTH, 3))
    keys = example_keys(0, 0, jnp.arange(count))
    out = np.asarray(jax.jit(Augment(policies=(rand_augment(2, 30),)))(images, keys))
    # An image is unchanged if both operations are the identity, or the second undoes the first.
    assert 1 / 14**2 / 4 < (out == photo()).all((1, 2, 3)).mean() < 0.03
    # Solarize and then posterize, as one of many pairs.
    first = ours(NARROW, "solarize", 1.0).astype(np.uint8)
    both = ours(NARROW, "posterize", 1.0, image=first)
    assert 1 <= (out == both).all((1, 2, 3)).sum() < 20


def test_operations_are_applied_with_their_probability():
    """The probability decides only whether an operation is applied, not which one."""
    count = 2000
    images = np.broadcast_to(photo(), (count, HEIGHT, WIDTH, 3))
    keys = example_keys(0, 0, jnp.arange(count))
    always, rarely, never = (
        np.asarray(jax.jit(Augment(policies=(rand_augment(1, 12, share),)))(images, keys))
        for share in (1.0, 0.3, 0.0)
    )
    assert (never == photo()).all()
    left, done = ((rarely == other).all((1, 2, 3)) for other in (never, always))
    assert (left | done).all()
    assert abs((~left).mean() - 0.3 * (always != photo()).any((1, 2, 3)).mean()) < 0.04
