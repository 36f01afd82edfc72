"""Weights of images in the training loss."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.data.augment.mixup import Targets, swap_pairs
from train.tasks.task import Loss


class ImageWeights(NamedTuple):
    """The weights of a batch of images.

    Attributes:
      label: weights ``(N,)`` of the images with the labels ``Targets.label``.
      other: weights ``(N,)`` of the images with ``Targets.other``; None without mixing.
    """

    label: jax.Array
    other: jax.Array | None = None


def image_weights(
    targets: Targets, record: jax.Array | None, classes: Sequence[float] | None = None
) -> ImageWeights | None:
    """Return the weights of a batch, the products of two kinds; None if all are 1.

    Args:
      targets: the labels, after mixing.
      record: weights of the records ``(N,)``, before mixing; None if all are 1.
      classes: weights of the classes ``(K,)``; None if all are 1.
    """
    if record is None and classes is None:
        return None
    weights = jnp.ones(targets.label.shape) if record is None else record
    other = None if targets.other is None else swap_pairs(weights)
    if classes is not None:
        by_class = jnp.asarray(classes, jnp.float32)
        weights = weights * by_class[targets.label]
        other = None if other is None else other * by_class[targets.other]
    return ImageWeights(weights, other)


def weighted_loss(
    loss: Loss, logits: jax.Array, targets: Targets, weights: ImageWeights | None
) -> jax.Array:
    """Return weighted losses ``(N,)``.

    The two images of a mixture are weighted by their own weights. For a loss that is linear in the
    target, such as the cross entropy, the result is Σ wᵢ tᵢ lᵢ with the shares t and the losses l
    of the two labels, as in PyTorch's ``CrossEntropyLoss(weight=…)`` of probabilities.

    Args:
      loss: the loss without weights.
      logits: float32 ``(N, K)``.
      targets: the labels.
      weights: the weights of their images; None: all are 1.
    """
    if weights is None:
        return loss(logits, targets)
    if targets.other is None:
        return weights.label * loss(logits, targets)
    own, other = targets.weight * weights.label, (1 - targets.weight) * weights.other
    total = own + other
    share = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), targets.weight)
    return total * loss(logits, targets._replace(weight=share))
