"""Test-time augmentation of segmentation: scaled and mirrored forms of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import jax
import jax.numpy as jnp

from flax_resnet.dense.resizing import resize_bilinear


@dataclass(frozen=True)
class PictureView:
    """A form of pictures in which a network sees them.

    Attributes:
      scale: factor of height and width, which are rounded to whole pixels.
      mirrored: whether left and right are exchanged.
    """

    scale: float = 1.0
    mirrored: bool = False

    def of(self, images: jax.Array) -> jax.Array:
        """Return this view of images ``(N, H, W, C)``; they are resized bilinearly."""
        if self.scale != 1:
            images = resize_bilinear(
                images, tuple(max(1, round(side * self.scale)) for side in images.shape[1:3])
            )
        return images[:, :, ::-1] if self.mirrored else images

    def undo(self, logits: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Return logits ``(N, H, W, K)`` of images of ``size``, (H, W), from those of this view."""
        return resize_bilinear(logits[:, :, ::-1] if self.mirrored else logits, size)


SAME = (PictureView(),)


def make_views(scales: Sequence[float] = (1.0,), flip: bool = False) -> tuple[PictureView, ...]:
    """Return a view for each of the scales and, with ``flip``, mirrored ones beside them."""
    sides = (False, True) if flip else (False,)
    return tuple(PictureView(scale, mirrored) for scale in scales for mirrored in sides)


def average_probabilities(logits: Sequence[jax.Array]) -> jax.Array:
    """Return the logarithm of the mean of the softmax probabilities of logits ``(…, K)``.

    As logits they have these probabilities. One array is returned as it is.
    """
    if len(logits) == 1:
        return logits[0]
    return reduce(jnp.logaddexp, map(jax.nn.log_softmax, logits)) - jnp.log(len(logits))
