"""Augmentation: its effects, and that they depend on seed, step and position only."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from flax_resnet.preprocessing import normalize
from train.config.loading import check_config, default_config
from train.data.augment.auto_augment import rand_augment, trivial_augment
from train.data.augment.configured import make_augment
from train.data.augment.mixup import Mixup
from train.data.augment.pipeline import Augment, color_jitter, example_keys
from train.runtime.errors import UsageError

EVERYTHING = Augment(
    pad_crop=2,
    hflip=True,
    vflip=True,
    policies=(trivial_augment(),),
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    cutout=3,
    random_erasing=0.5,
    mix=Mixup(mixup=0.4, cutmix=1.0, probability=0.8),
    fill=(10, 20, 30),
)


def numbered(count, size=6):
    """Return images whose pixels are all different and not black."""
    pixels = np.arange(1, size * size * 3 + 1, dtype=np.uint8).reshape(1, size, size, 3)
    return np.repeat(pixels, count, axis=0)


def noise(count, size=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def augmented(augment, images):
    """Return the images augmented as in step 0 with seed 0."""
    keys = example_keys(0, 0, jnp.arange(len(images)))
    return np.asarray(jax.jit(augment)(images, keys))


@pytest.mark.parametrize("name, axis", [("hflip", 2), ("vflip", 1)])
def test_flips_mirror_about_half_of_the_images(name, axis):
    images = numbered(400)
    out = augmented(Augment(**{name: True}), images)
    mirrored = (out == np.flip(images, axis)).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


def test_pad_crop_shifts_uniformly_in_both_directions():
    images = numbered(4900)
    out = augmented(Augment(pad_crop=3), images)
    padded = np.pad(images[0], ((3, 3), (3, 3), (0, 0)))
    shifts = {(y, x): padded[y : y + 6, x : x + 6] for y in range(7) for x in range(7)}
    counts = {at: (out == shifted).all((1, 2, 3)).sum() for at, shifted in shifts.items()}
    assert sum(counts.values()) == 4900
    assert min(counts.values()) > 55 and max(counts.values()) < 145


def blanked(augment, count=3000, shape=(20, 30)):
    """Return the filled pixels of black images, bool ``(N, H, W)``; the others must stay black."""
    out = augmented(augment, np.zeros((count, *shape, 3), np.uint8))
    inside = (out == augment.fill).all(-1)
    assert (inside | (out == 0).all(-1)).all()
    return inside


def bounds(inside):
    """Return heights and widths of the boxes in ``(N, H, W)``, one filled rectangle per image."""
    rows, columns = inside.any(2), inside.any(1)
    np.testing.assert_array_equal(inside, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # contiguous
        assert (np.diff(line.astype(int), axis=1, prepend=0) == 1).sum(1).max() <= 1
    return rows.sum(1), columns.sum(1)


def test_cutout_fills_a_square_around_any_pixel():
    inside = blanked(Augment(cutout=5, fill=(1, 2, 3)))
    heights, widths = bounds(inside)
    # Around pixel y it covers rows y − 2…y + 2, clipped to 0…H − 1.
    for got, size in ((heights, 20), (widths, 30)):
        expected = [min(size, y + 3) - max(0, y - 2) for y in range(size)]
        values, counts = np.unique(got, return_counts=True)
        assert values.tolist() == [3, 4, 5]
        shares = [expected.count(v) / size for v in values]
        np.testing.assert_allclose(counts / len(got), shares, atol=0.025)
    assert inside.any(0).all()


def test_random_erasing_has_its_probability_area_aspect_ratio_and_position():
    augment = Augment(
        random_erasing=0.4,
        random_erasing_scale=(0.1, 0.3),
        random_erasing_ratio=(0.5, 2),
        fill=(9, 9, 9),
    )
    inside = blanked(augment, count=6000, shape=(40, 60))
    heights, widths = bounds(inside)
    hit = heights > 0
    assert 0.37 < hit.mean() < 0.43
    heights, widths = heights[hit], widths[hit]
    areas = heights * widths / 2400
    # Sides are whole pixels, so areas are approximate.
    assert 0.09 < areas.min() < 0.11 and 0.29 < areas.max() < 0.31
    np.testing.assert_allclose(np.quantile(areas, [0.25, 0.5, 0.75]), [0.15, 0.2, 0.25], atol=0.01)
    aspects = np.log2(heights / widths)
    assert -1.15 < aspects.min() < -0.9 and 0.9 < aspects.max() < 1.15
    np.testing.assert_allclose(np.quantile(aspects, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.06)
    covered = inside[hit].mean(0)
    np.testing.assert_allclose(covered, covered[::-1], atol=0.06)
    np.testing.assert_allclose(covered, covered[:, ::-1], atol=0.06)
    assert covered[20, 30] > 4 * covered[0, 0] > 0  # few boxes cover a corner


def test_an_erased_box_is_never_larger_than_the_image():
    inside = blanked(
        Augment(random_erasing=1, random_erasing_scale=(0.8, 1), fill=(9, 9, 9)), 500, (8, 30)
    )
    heights, widths = bounds(inside)
    assert heights.max() == 8 and widths.max() == 30
    assert 0.7 < (heights * widths).mean() / 240 < 1


def jittered(image, reach, draws):
    return np.asarray(color_jitter(jnp.asarray(image), reach, jnp.float32(draws)))


@pytest.mark.parametrize("draw", [0.0, 0.3, 1.0])
def test_color_jitter_matches_pillows_enhancers(draw):
    image = noise(1)[0]
    enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    for place, enhancer in enumerate(enhancers):
        reach = np.zeros(4)
        reach[place] = 0.6
        ours = jittered(image, tuple(reach), np.full(4, draw))
        theirs = np.asarray(enhancer(Image.fromarray(image)).enhance(0.4 + 1.2 * draw))
        # Pillow rounds down; color jitter rounds once at the end.
        np.testing.assert_allclose(ours.astype(int), theirs, atol=1)


def test_color_jitter_shifts_the_hue():
    image = noise(1)[0]
    image[0, 0] = 77, 77, 77
    ours = jittered(image, (0, 0, 0, 0.5), np.full(4, 0.2))  # −0.3 of the circle

    def turned(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
        return np.array(colorsys.hsv_to_rgb((hue - 0.3) % 1, saturation, value)) * 255

    theirs = np.apply_along_axis(turned, 2, image)
    np.testing.assert_allclose(ours, theirs, atol=0.51)


def test_color_jitter_stays_in_its_ranges():
    gray = np.full((2000, 2, 2, 3), 100, np.uint8)
    out = augmented(Augment(color_jitter=(0.5, 0, 0, 0)), gray)[:, 0, 0, 0]
    np.testing.assert_allclose(np.quantile(out, [0, 0.5, 1]), [50, 100, 150], atol=2)
    # A factor of 2 does not clip here, and a factor of 0 is black.
    out = augmented(Augment(color_jitter=(1.0, 0, 0, 0)), gray)[:, 0, 0, 0]
    np.testing.assert_allclose(np.quantile(out, [0, 0.5, 1]), [0, 100, 200], atol=4)


def one_step(seed=0, step=3, places=range(16)):
    """Return images, labels and weights of the examples at ``places`` of a batch of 16."""
    places = np.array(places)
    keys = example_keys(seed, step, jnp.asarray(places))
    out = jax.jit(EVERYTHING.batch)(noise(16)[places], np.arange(16)[places], keys)
    return jax.tree.leaves(jax.device_get(out))


def test_an_example_depends_on_seed_step_and_position_only():
    whole = one_step()
    for start in range(0, 16, 4):  # a quarter of the batch by itself
        for expected, got in zip(whole, one_step(places=range(start, start + 4)), strict=True):
            np.testing.assert_array_equal(got, expected[start : start + 4])
    assert not np.array_equal(whole[0], one_step(seed=1)[0])
    assert not np.array_equal(whole[0], one_step(step=4)[0])
    assert len(np.unique(whole[0], axis=0)) == 16


def test_augmentation_does_not_depend_on_the_number_of_devices():
    def batch(images, labels):
        places = jax.lax.axis_index("batch") * 4 + jnp.arange(4)
        return EVERYTHING.batch(images, labels, example_keys(0, 3, places))

    spread = jax.pmap(batch, axis_name="batch")
    out = spread(noise(16).reshape(4, 4, 12, 12, 3), np.arange(16).reshape(4, 4))
    for expected, got in zip(one_step(), jax.tree.leaves(jax.device_get(out)), strict=True):
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)


def test_an_augmentation_does_not_depend_on_the_others_enabled():
    images = numbered(64)
    plain = augmented(Augment(hflip=True, pad_crop=2), images)
    with_box = augmented(Augment(hflip=True, pad_crop=2, cutout=1), images)
    assert ((plain != with_box).any(-1).sum((1, 2)) <= 1).all()
    box = augmented(Augment(cutout=1, mix=Mixup(1, 1, probability=1e-6)), images)
    pure = augmented(Augment(cutout=1), images)
    np.testing.assert_array_equal(box, pure)


def test_boxes_are_filled_after_color_jitter():
    augment = Augment(color_jitter=(1, 1, 1, 0.5), cutout=12, fill=(10, 20, 30))
    out = augmented(augment, noise(64))
    assert ((out == augment.fill).all(-1).sum((1, 2)) >= 36).all()  # a quarter at least


def test_normalize():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - mean) / std
    np.testing.assert_allclose(normalize(images, mean, std), expected, rtol=1e-5, atol=1e-6)


def test_defaults_change_nothing():
    images, labels = numbered(4), np.arange(4)
    keys = jax.random.split(jax.random.key(0), 4)
    assert Augment()(images, keys) is images
    out, targets = Augment(mix=Mixup(1, 1, probability=0)).batch(images, labels, keys)
    assert out is images and targets.label is labels and targets.other is None
    assert make_augment(default_config()) == Augment(fill=(124, 116, 104))


def test_all_fields_are_configurable():
    config = default_config()
    given = dict(pad_crop=2, hflip=True, vflip=True, color_jitter=(0.1, 0.2, 0.3, 0.4))
    given |= dict(
        cutout=3,
        random_erasing=0.5,
        random_erasing_scale=(0.1, 0.2),
        random_erasing_ratio=(0.4, 2.0),
    )
    mix = dict(mixup=0.2, cutmix=1.0, mixup_prob=0.7, mixup_switch_prob=0.3)
    policy = dict(policy="rand", rand_num_ops=3, rand_magnitude=7)
    config.augment.update(given | mix | policy)
    config.dataset.mean = (0.0, 0.5, 1.0)
    check_config(config)
    expected = Augment(
        **given, policies=(rand_augment(3, 7),), mix=Mixup(0.2, 1.0, 0.7, 0.3), fill=(0, 128, 255)
    )
    assert make_augment(config) == expected
    config.augment.policy = "trivial"
    assert make_augment(config).policies == (trivial_augment(),)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("augment.policy", "auto", "'' or 'trivial' or 'rand'"),
        ("augment.random_erasing", 1.5, "at most 1"),
        ("augment.rand_magnitude", 31, "at most 30"),
        ("augment.color_jitter", (0.4, 0.4, 0.4), "4 numbers"),
        ("augment.color_jitter", (0.4, 0.4, 0.4, 0.6), "hue, 0.6, must be at most 0.5"),
        ("augment.random_erasing_scale", (0.5, 0.1), "ascending order"),
    ],
)
def test_invalid_values_are_errors(key, value, message):
    config = default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=message):
        check_config(config)
        make_augment(config)
