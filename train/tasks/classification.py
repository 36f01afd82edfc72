"""Image classification: losses of logits against labels, and the rank behind top-1 and top-5.

The target of a record is its class, or two classes with their weights if images are mixed
(:class:`~train.data.augment.mixup.Targets`). The metrics are the loss in nats, top-1 and top-5
accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from train.config.registries import (
    LOSSES,
    METRICS,
    parse_top_k,
    register_loss,
    register_metric,
    register_task,
)
from train.data.augment.mixup import Targets
from train.runtime.own_code import build
from train.tasks.base import Loss, Metric
from train.tasks.rank import label_rank
from train.tasks.task import Task

if TYPE_CHECKING:  # the step needs no ml_collections
    from train.runtime.config_dict import ConfigDict

MIN_FOCAL_ERROR = 1e-7  # smallest 1 − p in the focal loss


@register_task("classification")
def classification(config: ConfigDict) -> Task:
    """Return the task with the loss of ``config.loss`` and the metrics of ``config.eval.metrics``.

    The loss of an evaluation has neither label smoothing, a target threshold nor a focal factor.
    """
    plain = config.copy_and_resolve_references()
    plain.label_smoothing = plain.bce_target_threshold = plain.focal_gamma = 0.0
    names = dict.fromkeys(("top1", "top5", *config.eval.metrics, config.eval.metric))
    metrics = {name: find_metric(name) for name in names}
    return Task(
        loss=build(LOSSES, config.loss, config),
        eval_loss=build(LOSSES, config.loss, plain),
        metrics={name: metric for name, metric in metrics.items() if metric is not None},
        probabilities=getattr(LOSSES[config.loss], "probabilities", "softmax"),
    )


@register_loss("cross_entropy")
def make_cross_entropy(config: ConfigDict) -> Loss:
    """Return :func:`mixed_cross_entropy` with ``config.label_smoothing``."""
    smoothing = config.label_smoothing
    return lambda logits, targets: mixed_cross_entropy(logits, targets, smoothing)


@register_loss("binary_cross_entropy")
def make_binary_cross_entropy(config: ConfigDict) -> Loss:
    """Return :func:`binary_cross_entropy` with smoothing and threshold of the configuration."""
    smoothing, threshold = config.label_smoothing, config.bce_target_threshold
    return lambda logits, targets: binary_cross_entropy(logits, targets, smoothing, threshold)


make_binary_cross_entropy.probabilities = "sigmoid"


@register_loss("focal")
def make_focal_loss(config: ConfigDict) -> Loss:
    """Return :func:`focal_loss` with ``config.focal_gamma`` and ``config.label_smoothing``."""
    gamma, smoothing = config.focal_gamma, config.label_smoothing
    return lambda logits, targets: targets.average(
        lambda labels: focal_loss(logits, labels, gamma, smoothing)
    )


@register_metric("top1")
def top1(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return whether the most probable class is the label, bool ``(N,)``."""
    return label_rank(logits, labels) < 1


@register_metric("top5")
def top5(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return whether the label is one of the five most probable classes, bool ``(N,)``."""
    return label_rank(logits, labels) < 5


def find_metric(name: str) -> Metric | None:
    """Return a registered metric, or top-k accuracy of any k; None for other names."""
    k = parse_top_k(name)
    return top_k(k) if k is not None and name not in METRICS else METRICS.get(name)


def top_k(k: int) -> Metric:
    """Return the metric of whether the label is one of the ``k`` most probable classes."""
    return lambda logits, labels: label_rank(logits, labels) < k


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Return cross-entropy losses ``(N,)`` in nats.

    With label smoothing s the target is 1 − s for the label plus s / K for each of the K classes
    (Szegedy et al. 2015, arXiv:1512.00567, section 7).

    Args:
      logits: float32 ``(N, K)``.
      labels: int ``(N,)``.
      smoothing: s, in 0…1.
    """
    log_p = jax.nn.log_softmax(logits)
    label_log_p = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -(1 - smoothing) * label_log_p - smoothing * log_p.mean(axis=1)


def focal_loss(
    logits: jax.Array, labels: jax.Array, gamma: float, smoothing: float = 0.0
) -> jax.Array:
    """Return focal losses ``(N,)`` in nats, −(1 − p)^γ log p of the label's probability p.

    Softmax form of Lin et al. 2017 (arXiv:1708.02002, equation 4) for several classes. With two
    classes it equals the paper's binary form, whose logit is the difference of the two. The
    paper's α is a class weight: ``config.class_weights``. With γ = 0 it is the cross entropy.

    Args:
      logits: float32 ``(N, K)``.
      labels: int ``(N,)``.
      gamma: the exponent γ, 0 or more; the paper uses 2.
      smoothing: label smoothing, as in :func:`cross_entropy`.
    """
    log_p = jax.nn.log_softmax(logits)
    # The gradient of x^γ at 0 is not finite for γ below 1.
    losses = -(jnp.maximum(-jnp.expm1(log_p), MIN_FOCAL_ERROR) ** gamma) * log_p
    label_losses = jnp.take_along_axis(losses, labels[:, None], axis=1)[:, 0]
    return (1 - smoothing) * label_losses + smoothing * losses.mean(axis=1)


def mixed_cross_entropy(logits: jax.Array, targets: Targets, smoothing: float = 0.0) -> jax.Array:
    """Return :func:`cross_entropy` losses ``(N,)``, for mixed images weighted over both labels.

    Cross entropy is linear in the target, so this equals the loss of the mixed, smoothed target.
    """
    return targets.average(lambda labels: cross_entropy(logits, labels, smoothing))


def binary_cross_entropy(
    logits: jax.Array, targets: Targets, smoothing: float = 0.0, threshold: float = 0.0
) -> jax.Array:
    """Return binary cross-entropy losses ``(N,)``, the mean over the K classes, in nats.

    As in ResNet strikes back (Wightman et al. 2021, arXiv:2110.00476, section 3.1), which counts
    every label of a mixed image in full: with a threshold, targets above it become 1 and others
    0. Without a threshold, labels count by their weights.

    Args:
      logits: float32 ``(N, K)``.
      targets: labels with weights.
      smoothing: label smoothing as in :func:`cross_entropy`, applied before the threshold.
      threshold: ``config.bce_target_threshold``; 0 for none.
    """
    classes = logits.shape[1]
    target = jax.nn.one_hot(targets.label, classes)
    if targets.other is not None:
        weight = targets.weight[:, None]
        target = weight * target + (1 - weight) * jax.nn.one_hot(targets.other, classes)
    target = (1 - smoothing) * target + smoothing / classes
    if threshold:
        target = (target > threshold).astype(logits.dtype)
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(target * log_p + (1 - target) * log_not_p).mean(axis=1)
