"""Losses and ranks against Optax and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.config.loading import default_config
from train.data.augment.mixup import Targets
from train.tasks.classification import (
    binary_cross_entropy,
    classification,
    cross_entropy,
    label_rank,
    mixed_cross_entropy,
)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_with_label_smoothing(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4)) * 3
    labels = np.array([0, 3, 1, 1, 2])
    target = np.full((5, 4), smoothing / 4)
    target[np.arange(5), labels] += 1 - smoothing
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ours = cross_entropy(jnp.float32(logits), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(ours, -(target * np.log(p)).sum(1), rtol=1e-5)


def test_label_rank_with_ties_and_nan():
    nan = np.nan
    logits = jnp.array([[1, 3, 2], [1, 3, 2], [5, 5, 5], [5, 5, 5], [nan, nan, nan], [1, nan, 0]])
    labels = jnp.array([1, 0, 0, 2, 0, 0])
    ranks = label_rank(logits, labels).tolist()
    assert ranks[:4] == [0, 2, 0, 2]
    assert ranks[4] > 0 and ranks[5] > 0


def test_label_rank_is_the_place_in_a_stable_order():
    """Of nine classes with four different logits, so that several of both kinds come before."""
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (500, 9)).astype(np.float32)
    labels = rng.integers(0, 9, 500)
    order = np.argsort(-logits, axis=1, kind="stable")
    expected = (order == labels[:, None]).argmax(1)
    assert set(expected) == set(range(9))
    np.testing.assert_array_equal(label_rank(jnp.asarray(logits), jnp.asarray(labels)), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_cross_entropy_equals_that_of_soft_targets(smoothing):
    rng = np.random.default_rng(0)
    logits = jnp.float32(rng.normal(size=(6, 5)) * 3)
    label, other = jnp.array([0, 1, 2, 3, 4, 4]), jnp.array([1, 0, 3, 2, 1, 4])
    weight = jnp.float32([0.9, 0.9, 0.2, 0.2, 0.5, 1.0])
    soft = weight[:, None] * jax.nn.one_hot(label, 5) + (1 - weight)[:, None] * jax.nn.one_hot(
        other, 5
    )
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(soft, smoothing))
    result = mixed_cross_entropy(logits, Targets(label, other, weight), smoothing)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert Targets(label, other, weight).dominant().tolist() == [0, 1, 3, 2, 4, 4]
    pure = mixed_cross_entropy(logits, Targets(label), smoothing)
    np.testing.assert_allclose(pure, cross_entropy(logits, label, smoothing))
    assert Targets(label).dominant() is label


def test_binary_cross_entropy_smooths_before_the_threshold():
    """As timm does; it matters for weights close to the threshold."""
    logits = jnp.float32(np.random.default_rng(0).normal(size=(3, 5)))
    label, other = jnp.array([0, 1, 2]), jnp.array([3, 4, 2])
    weight = jnp.float32([0.9, 0.6, 1.0])
    hard = np.zeros((3, 5), np.float32)
    hard[[0, 1, 1, 2], [0, 1, 4, 2]] = 1  # 0.8 * 0.1 + 0.04 is below 0.15
    expected = optax.sigmoid_binary_cross_entropy(logits, hard).mean(1)
    result = binary_cross_entropy(logits, Targets(label, other, weight), 0.2, 0.15)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    # 0.8 * 0.12 + 0.04 = 0.136 is above 0.13; unsmoothed, 0.12 would not be.
    targets = Targets(label[:1], other[:1], jnp.float32([0.88]))
    result = binary_cross_entropy(logits[:1], targets, 0.2, 0.13)
    hard[0, 3] = 1
    expected = optax.sigmoid_binary_cross_entropy(logits[:1], hard[:1]).mean(1)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def mixed():
    logits = jnp.float32(np.random.default_rng(0).normal(size=(4, 5)) * 3)
    label, other = jnp.array([0, 1, 2, 4]), jnp.array([1, 0, 3, 4])
    return logits, Targets(label, other, jnp.float32([0.9, 0.15, 0.4, 0.5]))


def test_binary_cross_entropy_of_weighted_labels():
    logits, targets = mixed()
    soft = np.zeros((4, 5))
    for row, (label, other, weight) in enumerate(zip(*map(np.asarray, targets), strict=True)):
        soft[row, label] += weight
        soft[row, other] += 1 - weight
    for smoothing in (0.0, 0.1):
        smooth = optax.smooth_labels(jnp.float32(soft), smoothing)
        expected = optax.sigmoid_binary_cross_entropy(logits, smooth).mean(axis=1)
        result = binary_cross_entropy(logits, targets, smoothing)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def task(loss, **keys):
    config = default_config()
    config.loss = loss
    config.update(keys)
    return classification(config)


def test_threshold_makes_targets_binary():
    logits, targets = mixed()
    loss = task("binary_cross_entropy", bce_target_threshold=0.2).loss
    hard = np.zeros((4, 5))
    hard[[0, 1, 2, 2, 3], [0, 0, 2, 3, 4]] = 1  # 0.1 and 0.15 are too little
    expected = optax.sigmoid_binary_cross_entropy(logits, jnp.float32(hard)).mean(axis=1)
    np.testing.assert_allclose(loss(logits, targets), expected, rtol=1e-5)


def test_losses_of_the_task():
    """With the defaults, and with every key."""
    logits, targets = mixed()
    np.testing.assert_array_equal(
        task("cross_entropy").loss(logits, targets), mixed_cross_entropy(logits, targets, 0.0)
    )
    smooth = task("cross_entropy", label_smoothing=0.1)
    np.testing.assert_array_equal(
        smooth.loss(logits, targets), mixed_cross_entropy(logits, targets, 0.1)
    )
    np.testing.assert_array_equal(
        smooth.eval_loss(logits, targets), mixed_cross_entropy(logits, targets, 0.0)
    )
    assert smooth.probabilities == "softmax"
    hard = jax.nn.one_hot(targets.label, 5)
    expected = optax.sigmoid_binary_cross_entropy(logits, hard).mean(axis=1)
    result = task("binary_cross_entropy").loss(logits, Targets(targets.label))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    binary = task("binary_cross_entropy", label_smoothing=0.1, bce_target_threshold=0.2)
    np.testing.assert_array_equal(
        binary.loss(logits, targets), binary_cross_entropy(logits, targets, 0.1, 0.2)
    )
    np.testing.assert_array_equal(
        binary.eval_loss(logits, targets), binary_cross_entropy(logits, targets)
    )
    assert binary.probabilities == "sigmoid"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cross_entropy", {1: 2, 2: 2, 6: 6}), ("binary_cross_entropy", {1: 2, 2: 2, 6: 2})],
)
def test_chance_loss_is_that_of_equal_probabilities(name, expected):
    """A single class has a loss of 0 whatever is learned; chance must not be below that of two."""
    made = task(name)
    for classes, equally_likely in expected.items():
        assert made.chance_loss(classes) == pytest.approx(np.log(equally_likely), rel=1e-5)
