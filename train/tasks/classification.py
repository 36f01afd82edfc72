"""Losses of logits against labels, and which answers are right."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from train.data.augment.mixup import Targets


def make_loss(
    name: str, smoothing: float = 0.0, threshold: float = 0.0
) -> Callable[[jax.Array, Targets], jax.Array]:
    """The loss ``(logits (N, K), targets) -> (N,)`` of ``config.loss``, in nats."""
    if name == "binary_cross_entropy":
        return lambda logits, targets: binary_cross_entropy(logits, targets, smoothing, threshold)
    return lambda logits, targets: mixed_cross_entropy(logits, targets, smoothing)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Losses ``(N,)`` of float32 logits ``(N, K)`` against labels ``(N,)``, in nats.

    With smoothing s the target is 1 − s for the label plus s / K for each of the K classes
    (Szegedy et al. 2015, arXiv:1512.00567, section 7).
    """
    log_p = jax.nn.log_softmax(logits)
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -(1 - smoothing) * of_label - smoothing * log_p.mean(axis=1)


def mixed_cross_entropy(logits: jax.Array, targets: Targets, smoothing: float = 0.0) -> jax.Array:
    """Losses ``(N,)`` as :func:`cross_entropy`'s, of mixed images weighted over both labels.

    Cross entropy is linear in the target, so this is that of the mixture of both smoothed ones.
    """
    losses = cross_entropy(logits, targets.label, smoothing)
    if targets.other is None:
        return losses
    others = cross_entropy(logits, targets.other, smoothing)
    return targets.weight * losses + (1 - targets.weight) * others


def label_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes come before the label, int32 ``(N,)``; 0 is a right answer.

    Of equal logits the lower class comes first, as with argmax, so a net that gives the same
    to all classes is not right by chance; NaN comes before everything.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    lower = jnp.arange(logits.shape[1]) < labels[:, None]
    return (~(logits <= own)).sum(axis=1) + ((logits == own) & lower).sum(axis=1)


def binary_cross_entropy(
    logits: jax.Array, targets: Targets, smoothing: float = 0.0, threshold: float = 0.0
) -> jax.Array:
    """Losses ``(N,)`` of each class for itself, yes or no; the mean over the K classes.

    As in ResNet strikes back (Wightman et al. 2021, arXiv:2110.00476, section 3.1), where
    every label of a mixed image is wholly there: with a threshold t, targets above t become 1
    and others 0. Without one a label is there by its share. Smoothing as in
    :func:`cross_entropy`, before the threshold.
    """
    classes = logits.shape[1]
    target = jax.nn.one_hot(targets.label, classes)
    if targets.other is not None:
        weight = targets.weight[:, None]
        target = weight * target + (1 - weight) * jax.nn.one_hot(targets.other, classes)
    target = (1 - smoothing) * target + smoothing / classes
    if threshold:
        target = (target > threshold).astype(logits.dtype)
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(target * yes + (1 - target) * no).mean(axis=1)


def chance_loss(name: str, classes: int) -> float:
    """The loss of logits that are all zero: a net's that has learned nothing."""
    # The one class of a net with a single output is never wrong, and its loss is 0.
    return math.log(2 if name == "binary_cross_entropy" else max(2, classes))
