"""Weighted, adjusted and focal losses against PyTorch and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.data.augment.mixup import Targets, swap_pairs
from train.tasks.classification import cross_entropy, focal_loss, mixed_cross_entropy
from train.tasks.weighting import ImageWeights, image_weights, weighted_loss

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 3, 1, 1, 2, 0])
CLASS_WEIGHTS = (0.5, 2.0, 1.0, 4.0)
SHARES = np.float32([0.9, 0.9, 0.2, 0.2, 0.5, 0.5])


def ours(targets, record=None, classes=CLASS_WEIGHTS):
    weights = image_weights(targets, record, classes)
    return weighted_loss(mixed_cross_entropy, jnp.asarray(LOGITS), targets, weights)


def test_class_weights_are_those_of_pytorch():
    """The mean loss and its gradient; PyTorch divides those of mixtures by N."""
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(CLASS_WEIGHTS))
    expected = loss(logits, torch.tensor(LABELS))
    expected.backward()
    targets = Targets(jnp.asarray(LABELS))
    mean, gradient = jax.value_and_grad(
        lambda logits: weighted_loss(
            mixed_cross_entropy, logits, targets, image_weights(targets, None, CLASS_WEIGHTS)
        ).mean()
    )(jnp.asarray(LOGITS))
    np.testing.assert_allclose(mean, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradient, logits.grad, rtol=1e-4, atol=1e-7)
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(CLASS_WEIGHTS), reduction="none")
    soft = SHARES[:, None] * np.eye(4)[LABELS]
    soft += (1 - SHARES)[:, None] * np.eye(4)[LABELS[[1, 0, 3, 2, 5, 4]]]
    expected = loss(torch.tensor(LOGITS), torch.tensor(soft, dtype=torch.float32)).numpy()
    mixed = Targets(jnp.asarray(LABELS), swap_pairs(LABELS), jnp.asarray(SHARES))
    mean_weight = (soft @ CLASS_WEIGHTS).mean()
    np.testing.assert_allclose(ours(mixed), expected / mean_weight, rtol=1e-5)


def test_class_weights_have_a_mean_of_one_in_every_batch_of_weighted_records():
    record = np.float32([2, 0, 1, 3, 0, 0])
    weights = image_weights(Targets(jnp.asarray(LABELS)), record, CLASS_WEIGHTS)
    ratio = np.array(CLASS_WEIGHTS)[LABELS]
    np.testing.assert_allclose(weights.label, record * ratio * 6 / (record @ ratio), rtol=1e-6)
    no_weight = image_weights(Targets(jnp.asarray(LABELS)), 0 * record, CLASS_WEIGHTS)
    np.testing.assert_array_equal(no_weight.label, 0)


def test_both_images_of_a_mixture_have_their_own_weight():
    record = np.float32([2, 0, 1, 3, 0, 0])
    mixed = Targets(jnp.asarray(LABELS), swap_pairs(LABELS), jnp.asarray(SHARES))
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    rows, partner = np.arange(6), np.arange(6) ^ 1
    weights = record * np.array(CLASS_WEIGHTS)[LABELS]
    shares = np.stack([SHARES, 1 - SHARES])
    before, after = ((shares * [each, each[partner]]).sum() for each in (record, weights))
    weights *= before / after
    expected = -SHARES * weights * log_p[rows, LABELS]
    expected -= (1 - SHARES) * weights[partner] * log_p[rows, LABELS[partner]]
    found = ours(mixed, jnp.asarray(record))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.asarray(found)[4:] == 0).all()  # both images have no weight


def sigmoid_focal(logits, targets, gamma, alpha=-1.0):
    """torchvision's formula (ops.sigmoid_focal_loss), in NumPy."""
    p = 1 / (1 + np.exp(-logits))
    entropy = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = entropy * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return loss


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_two_classes_is_the_binary_form(gamma):
    logits, labels = LOGITS[:, :2].astype(np.float64), LABELS % 2
    difference = logits[:, 1] - logits[:, 0]
    found = focal_loss(jnp.asarray(LOGITS[:, :2]), jnp.asarray(labels), gamma)
    np.testing.assert_allclose(found, sigmoid_focal(difference, labels, gamma), rtol=1e-4)
    # The factor alpha of positives and 1 - alpha of negatives is a pair of class weights.
    targets = Targets(jnp.asarray(labels))
    weights = ImageWeights(jnp.asarray((0.75, 0.25))[labels])

    def loss(logits, targets):
        return focal_loss(logits, targets.label, gamma)

    found = weighted_loss(loss, jnp.asarray(LOGITS[:, :2]), targets, weights)
    expected = sigmoid_focal(difference, labels, gamma, alpha=0.25)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_focal_loss_of_several_classes_is_the_closed_form():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    every = -((1 - p) ** 2) * np.log(p)
    own = every[np.arange(6), LABELS]
    found = focal_loss(jnp.asarray(LOGITS), jnp.asarray(LABELS), 2.0, smoothing=0.1)
    np.testing.assert_allclose(found, 0.9 * own + 0.1 * every.mean(1), rtol=1e-4)
    found = focal_loss(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.0, smoothing=0.1)
    expected = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_of_certain_predictions_are_finite(gamma):
    logits = jnp.float32([[200, 0], [0, 200]])
    loss = lambda logits: focal_loss(logits, jnp.array([0, 0]), gamma).sum()  # noqa: E731
    assert np.isfinite(jax.grad(loss)(logits)).all()
