"""Mixup and CutMix against closed forms and their distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from train.data.augment.mixup import Mixup, beta
from train.runtime.errors import UsageError


def mixed(mix, images, seed=0):
    """Return ``mix`` applied to uint8 images with labels 0…N − 1, as NumPy arrays."""
    draws = jax.random.uniform(jax.random.key(seed), (len(images), Mixup.DRAWS))
    out, targets = jax.device_get(jax.jit(mix)(images, jnp.arange(len(images)), draws))
    return out, targets


def constant(count, size=16):
    """Return uniform images, alternately of levels 40 and 200."""
    return np.resize(np.uint8([40, 200]), count)[:, None, None, None] * np.ones(
        (1, size, size, 3), np.uint8
    )


def test_mixup_is_the_weighted_mean_of_neighbors():
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    out, targets = mixed(Mixup(mixup=1.0), images)
    partner = np.arange(64) ^ 1
    np.testing.assert_array_equal(targets.label, np.arange(64))
    np.testing.assert_array_equal(targets.other, partner)
    np.testing.assert_array_equal(targets.weight, targets.weight[partner])
    share = targets.weight[:, None, None, None]
    exact = share * images + (1 - share) * images[partner].astype(float)
    np.testing.assert_allclose(out, exact, atol=0.501)


def test_cutmix_pastes_a_box_and_weights_labels_by_area():
    out, targets = mixed(Mixup(cutmix=1.0), constant(400))
    own = (out == constant(400)).all(-1)
    assert (own | (out == constant(400)[::-1]).all(-1)).all()
    np.testing.assert_allclose(targets.weight, own.mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(own[::2], own[1::2])  # a pair has one box
    pasted = ~own
    rows, columns = pasted.any(2), pasted.any(1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    assert len(np.unique(rows, axis=0)) > 50


def test_cutmix_boxes_have_the_distribution_of_the_paper():
    """The algorithm of the paper: any center, sides by the square root, clipped."""
    _, targets = mixed(Mixup(cutmix=1.0), np.zeros((20000, 16, 16, 3), np.uint8))
    rng = np.random.default_rng(0)
    side = (16 * np.sqrt(1 - rng.beta(1, 1, 10000))).astype(int)
    area = 1.0
    for _ in range(2):
        center = rng.integers(0, 16, 10000)
        low, high = np.clip(center - side // 2, 0, 16), np.clip(center + side // 2, 0, 16)
        area = area * (high - low)
    expected = 1 - area / 256
    assert scipy.stats.ks_2samp(targets.weight[::2], expected).statistic < 0.03


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 8.0])
def test_weights_follow_the_beta_distribution(alpha):
    draws = np.random.default_rng(0).uniform(size=50000).astype(np.float32)
    shares = np.asarray(beta(alpha, jnp.asarray(draws)))
    assert shares.min() >= 0 and shares.max() <= 1
    exact = scipy.stats.beta(alpha, alpha)
    places = np.linspace(0.001, 0.999, 200)
    reached = np.searchsorted(np.sort(shares), places) / len(shares)
    np.testing.assert_allclose(reached, exact.cdf(places), atol=0.01)
    np.testing.assert_allclose(shares.std(), exact.std(), rtol=0.02)
    if alpha == 1:
        np.testing.assert_allclose(shares, draws, atol=1e-6)


def test_probability_and_switch():
    out, targets = mixed(Mixup(1.0, 1.0, probability=0.6, switch=0.25), constant(8000, size=8))
    own, other = constant(8000, size=8), constant(8000, size=8)[::-1]
    untouched = (out == own).all((1, 2, 3))
    np.testing.assert_array_equal(targets.weight[untouched] > 0.98, True)
    boxed = ((out == own) | (out == other)).all((1, 2, 3)) & ~untouched
    # CutMix leaves an image untouched if its box is smaller than a pixel: area < 1 / 64.
    cut = 0.6 * 0.25 * (1 - 1 / 64)
    np.testing.assert_allclose(untouched.mean(), 1 - 0.6 + 0.6 * 0.25 / 64, atol=0.025)
    np.testing.assert_allclose(boxed.mean(), cut, atol=0.02)
    assert not Mixup(mixup=1.0, probability=0.0) and not Mixup() and Mixup(cutmix=1.0)


def test_an_odd_number_of_examples_is_an_error():
    with pytest.raises(UsageError, match="share of the batch, 3, is odd; choose a batch_size"):
        Mixup(mixup=1.0)(constant(3), jnp.arange(3), jnp.zeros((3, 5)))
