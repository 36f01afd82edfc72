"""Multi-label classification: an image has any number of classes, each a binary question.

The target of a record is uint8 ``(K,)`` of zeros and ones, of mixed images two of these with their
weights. Every class has a sigmoid of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from train.config.registries import (
    LOSSES,
    METRICS,
    MULTI_LABEL,
    parse_top_k,
    register_loss,
    register_task,
)
from train.data.augment.mixup import Targets
from train.runtime.errors import UsageError
from train.runtime.own_code import build
from train.tasks.base import Loss, Metric
from train.tasks.multi_label_metrics import MULTI_LABEL_METRICS, multi_label_metrics
from train.tasks.rank import label_rank
from train.tasks.task import Task

if TYPE_CHECKING:  # the step needs no ml_collections
    from train.runtime.config_dict import ConfigDict

_CROSS_ENTROPIES = ("cross_entropy", "binary_cross_entropy")
_EPSILON = 1e-8  # smallest probability in a logarithm of the asymmetric loss


@register_task(MULTI_LABEL)
def multi_label(config: ConfigDict) -> Task:
    """Return the task with sigmoid cross-entropy, the asymmetric loss or an own loss.

    Raises:
      UsageError: a key has no meaning for images of several classes.
    """
    check_keys(config)
    smoothing, weigh = config.label_smoothing, None
    if config.loss in _CROSS_ENTROPIES:
        loss, eval_loss = partial(sigmoid_cross_entropy, smoothing=smoothing), sigmoid_cross_entropy
        weigh = partial(_weighted_cross_entropy, smoothing)
    else:
        loss = eval_loss = build(LOSSES, config.loss, config)
    names = dict.fromkeys(("top1", *config.eval.metrics, config.eval.metric))
    return Task(
        loss=loss,
        eval_loss=eval_loss,
        metrics={name: _metric(name) for name in names if name in METRICS or parse_top_k(name)},
        split_metrics=multi_label_metrics,
        split_metric_names=MULTI_LABEL_METRICS,
        probabilities="sigmoid",
        several_labels=True,
        rank=best_rank,
        weigh_positives=weigh,
    )


def check_keys(config: ConfigDict) -> None:
    """Raise UsageError for a key that the losses of this task do not use."""
    if config.bce_target_threshold:
        raise UsageError(
            f"config.bce_target_threshold={config.bce_target_threshold!r} has no meaning with"
            " task='multi_label', in which an image may have several classes; set it to 0"
        )
    if config.loss == "focal":
        raise UsageError(
            "config.loss='focal' is for one class per image; with task='multi_label' use"
            " 'asymmetric', whose exponents asymmetric_gamma=(2,2) with asymmetric_margin=0 are"
            " those of the focal loss"
        )
    is_own = LOSSES.owner(config.loss) is not None
    if config.pos_weight and config.loss not in _CROSS_ENTROPIES:
        raise UsageError(
            f"config.pos_weight={config.pos_weight!r} weights the sigmoid cross-entropy, not"
            f" loss={config.loss!r}; reset one of them"
        )
    if config.label_smoothing and config.loss not in _CROSS_ENTROPIES and not is_own:
        raise UsageError(
            f"config.label_smoothing={config.label_smoothing:g} has no effect on"
            f" loss={config.loss!r}; reset it to 0"
        )


@register_loss("asymmetric")
def make_asymmetric_loss(config: ConfigDict) -> Loss:
    """Return :func:`asymmetric_loss` with the exponents and the margin of the configuration."""
    if config.task != MULTI_LABEL:
        raise UsageError("config.loss='asymmetric' needs task='multi_label'")
    gammas, margin = tuple(config.asymmetric_gamma), config.asymmetric_margin
    return lambda logits, targets: targets.average(
        lambda labels: asymmetric_loss(logits, labels, gammas, margin)
    )


def sigmoid_cross_entropy(
    logits: jax.Array,
    targets: Targets,
    smoothing: float = 0.0,
    positive_weights: Sequence[float] | None = None,
) -> jax.Array:
    """Return binary cross-entropy losses ``(N,)``, the mean over all outputs, in nats.

    As PyTorch's ``BCEWithLogitsLoss(pos_weight=…)``, per image.

    Args:
      logits: float32 ``(N, outputs)``.
      targets: labels ``(N, K)`` of zeros and ones, with weights if images are mixed.
      smoothing: label smoothing s; targets are s / 2 and 1 − s / 2.
      positive_weights: factors of the loss of positive labels ``(K,)``; None: all are 1.
    """
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    weights = jnp.ones(logits.shape[1], logits.dtype)
    if positive_weights is not None:
        weights = weights.at[: len(positive_weights)].set(jnp.asarray(positive_weights))

    def loss(labels: jax.Array) -> jax.Array:
        target = (1 - smoothing) * all_outputs(labels, logits) + smoothing / 2
        return -(weights * target * log_p + (1 - target) * log_not_p).mean(axis=1)

    return targets.average(loss)


def _weighted_cross_entropy(smoothing: float, positive_weights: Sequence[float]) -> Loss:
    return partial(
        sigmoid_cross_entropy, smoothing=smoothing, positive_weights=tuple(positive_weights)
    )


def asymmetric_loss(
    logits: jax.Array, labels: jax.Array, gammas: tuple[float, float], margin: float
) -> jax.Array:
    """Return asymmetric losses ``(N,)``, the mean over all outputs, in nats.

    Ridnik et al. 2021 (arXiv:2009.14119, equations 4 to 7); the authors' code adds the classes
    up. Positive labels lose −(1 − p)^γ₊ log p, negative ones −q^γ₋ log(1 − q), where
    q = max(p − m, 0). As in that code, the gradient also flows through the powers.

    Args:
      logits: float32 ``(N, outputs)``.
      labels: ``(N, K)`` of zeros and ones.
      gammas: the exponents γ₊ and γ₋; the paper uses 0 and 4.
      margin: m; the paper uses 0.05.
    """
    positive_gamma, negative_gamma = gammas
    target = all_outputs(labels, logits)
    p = jax.nn.sigmoid(logits)
    shifted = jnp.minimum(1 - p + margin, 1)  # 1 - q
    positive = jnp.log(jnp.maximum(p, _EPSILON))
    negative = jnp.log(jnp.maximum(shifted, _EPSILON))
    # The gradient of x^γ at 0 is not finite for γ below 1.
    positive *= jnp.maximum(1 - p, _EPSILON) ** positive_gamma if positive_gamma else 1.0
    negative *= jnp.maximum(1 - shifted, _EPSILON) ** negative_gamma if negative_gamma else 1.0
    return -(target * positive + (1 - target) * negative).mean(axis=1)


def all_outputs(labels: jax.Array, logits: jax.Array) -> jax.Array:
    """Return labels ``(N, K)`` as floats ``(N, outputs)``; outputs beyond the classes are 0."""
    extra = logits.shape[1] - labels.shape[1]
    return jnp.pad(labels.astype(logits.dtype), ((0, 0), (0, extra)))


def best_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the number of outputs ranked before the best class of each image, int32 ``(N,)``.

    0 means that the most probable class is one of the image's: its share is the precision at 1,
    one minus the one-error (Schapire and Singer 2000). For an image without a class it is the
    number of outputs.

    Args:
      logits: float32 ``(N, outputs)``.
      labels: ``(N, K)`` of zeros and ones.
    """
    positive = all_outputs(labels, logits) > 0
    best = jnp.where(positive, logits, -jnp.inf).argmax(axis=1)
    return jnp.where(positive.any(axis=1), label_rank(logits, best), logits.shape[1])


def _metric(name: str) -> Metric:
    """Return the metric of that name: of the rank of an image's best class, or an own one."""
    k = parse_top_k(name)
    if k is None:
        return METRICS[name]
    return lambda logits, labels: best_rank(logits, labels) < k
