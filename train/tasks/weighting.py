"""Weights of images in the training loss."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.data.augment.mixup import Targets, swap_pairs
from train.tasks.base import Loss


class ImageWeights(NamedTuple):
    """The weights of a batch of images.

    Attributes:
      label: weights ``(N,)`` of the images with the labels ``Targets.label``.
      other: weights ``(N,)`` of the images with ``Targets.other``; None without mixing.
    """

    label: jax.Array
    other: jax.Array | None = None

    def total(self, targets: Targets) -> jax.Array:
        """Return one weight per image ``(N,)``: of a mixture the mean by its shares."""
        if self.other is None:
            return self.label
        return targets.weight * self.label + (1 - targets.weight) * self.other


def image_weights(
    targets: Targets,
    record: jax.Array | None,
    classes: Sequence[float] | None = None,
    mean: Callable[[jax.Array], jax.Array] = jnp.mean,
) -> ImageWeights | None:
    """Return the weights of a batch, the products of two kinds; None if all are 1.

    The weights of the classes are divided by their mean over the batch, weighted by those of the
    records, as in PyTorch's ``CrossEntropyLoss(weight=…)``: otherwise the few images of a rare
    class, with their large weights, would change the length of a step from batch to batch.

    Args:
      targets: the labels, after mixing.
      record: weights of the records ``(N,)``, before mixing; None if all are 1.
      classes: weights of the classes ``(K,)``; None if all are 1.
      mean: the mean of an array ``(N,)`` over the global batch.
    """
    if record is None and classes is None:
        return None
    records = jnp.ones(targets.label.shape) if record is None else record
    weights = ImageWeights(records, None if targets.other is None else swap_pairs(records))
    if classes is None:
        return weights
    by_class = jnp.asarray(classes, jnp.float32)
    other = None if targets.other is None else weights.other * by_class[targets.other]
    product = ImageWeights(weights.label * by_class[targets.label], other)
    before, after = (mean(each.total(targets)) for each in (weights, product))
    # Without any weight in the batch both are 0.
    factor = jnp.where(after > 0, before / jnp.where(after > 0, after, 1), 1)
    return jax.tree.map(lambda each: factor * each, product)


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
    own, total = targets.weight * weights.label, weights.total(targets)
    share = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), targets.weight)
    return total * loss(logits, targets._replace(weight=share))
