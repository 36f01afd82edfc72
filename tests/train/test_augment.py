"""Augmentation: what it may do to an image, and that it follows seed, step and place."""

import jax
import jax.numpy as jnp
import numpy as np

from train.augment import Augment, example_keys, normalize


def numbered(count, size=6):
    """Images whose pixels are all different and none is black."""
    pixels = np.arange(1, size * size * 3 + 1, dtype=np.uint8).reshape(1, size, size, 3)
    return np.repeat(pixels, count, axis=0)


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest():
    images = numbered(400)
    out = np.asarray(Augment(flip=True)(images, example_keys(0, 0, jnp.arange(400))))
    mirrored = (out == images[:, :, ::-1]).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


def test_pad_crop_shifts_evenly_in_both_directions():
    images = numbered(1800)
    out = np.asarray(Augment(pad_crop=1)(images, example_keys(0, 0, jnp.arange(1800))))
    padded = np.pad(images[0], ((1, 1), (1, 1), (0, 0)))
    shifts = {(y, x): padded[y : y + 6, x : x + 6] for y in range(3) for x in range(3)}
    counts = {at: (out == shifted).all((1, 2, 3)).sum() for at, shifted in shifts.items()}
    assert sum(counts.values()) == 1800
    assert min(counts.values()) > 140 and max(counts.values()) < 260


def test_an_example_depends_on_seed_step_and_place_alone():
    augment = Augment(flip=True, pad_crop=2)
    images = numbered(32, size=8)

    def run(seed, step, places):
        return np.asarray(augment(images[places], example_keys(seed, step, jnp.asarray(places))))

    whole = run(1, 7, np.arange(32))
    np.testing.assert_array_equal(whole[20:28], run(1, 7, np.arange(20, 28)))
    assert not np.array_equal(whole, run(2, 7, np.arange(32)))
    assert not np.array_equal(whole, run(1, 8, np.arange(32)))
    assert len(np.unique(whole, axis=0)) > 16


def test_normalize():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - mean) / std
    np.testing.assert_allclose(normalize(images, mean, std), expected, rtol=1e-5, atol=1e-6)


def test_nothing_asked_for_changes_nothing():
    images = numbered(4)
    assert Augment()(images, jax.random.split(jax.random.key(0), 4)) is images
