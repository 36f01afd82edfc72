"""Mixup and CutMix: combine two images into one, whose target is a mixture of both labels.

Neighbors are mixed: examples 2j and 2j + 1 of the global batch, each with the other and with the
same random numbers. timm (``mode="pair"``) mixes example i with the example at the same distance
from the end of the batch. In a shuffled batch the distribution is the same, but that pairs
examples of different devices or, if each device reverses its own share, different examples for
each number of devices. Neighbors are on one device whenever its share of the batch is even, so
devices exchange nothing, and the mixed batch depends only on seed and step.

Each pair has its own random numbers; timm's default samples once per batch. The distribution of
an example is the same; a batch covers the whole range of mixtures instead of one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train.data.augment.image_ops import box
from train.runtime.errors import UsageError


class Targets(NamedTuple):
    """The targets of a batch.

    Attributes:
      label: int ``(N,)``, or ``(N, K)`` of zeros and ones if images may have several classes.
      other: the second label of mixed images, in the same form; None without mixing.
      weight: the share of ``label`` ``(N,)``; the rest is that of ``other``. None without mixing.
    """

    label: jax.Array
    other: jax.Array | None = None
    weight: jax.Array | None = None

    def dominant(self) -> jax.Array:
        """Return the labels with the larger share, which count as correct."""
        if self.other is None:
            return self.label
        weight = self.weight.reshape(-1, *[1] * (self.label.ndim - 1))
        return jnp.where(weight < 0.5, self.other, self.label)

    def average(self, loss: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Return the losses ``(N,)`` of labels, of mixed images weighted over both."""
        losses = loss(self.label)
        if self.other is None:
            return losses
        return self.weight * losses + (1 - self.weight) * loss(self.other)


@dataclass(frozen=True)
class Mixup:
    """Mixup (Zhang et al. 2017, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899).

    Attributes:
      mixup: α of the Beta(α, α) distribution of an image's share in mixup; 0: off.
      cutmix: α of that distribution in CutMix; 0: off.
      probability: probability of mixing a pair.
      switch: probability of CutMix if both are on.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    DRAWS = 5

    def __bool__(self) -> bool:
        return bool((self.mixup or self.cutmix) and self.probability)

    def __call__(
        self, images: jax.Array, labels: jax.Array, draws: jax.Array
    ) -> tuple[jax.Array, Targets]:
        """Mix a batch of images.

        Args:
          images: uint8 or uint16 ``(N, H, W, C)``.
          labels: ``Targets.label``.
          draws: uniform random numbers ``(N, 5)``; a pair uses those of its first example.

        Returns:
          The mixed images and their targets.

        Raises:
          UsageError: N is odd.
        """
        check_even(len(images))
        weights = jax.vmap(lambda draw: self._weights(images.shape[1:3], draw))(draws[::2])
        weights = jnp.repeat(weights, 2, axis=0)  # (N, H, W, 1)
        own, partner = images.astype(jnp.float32), swap_pairs(images).astype(jnp.float32)
        mixed = jnp.round(partner + weights * (own - partner)).astype(images.dtype)
        return mixed, Targets(labels, swap_pairs(labels), weights.mean((1, 2, 3)))

    def _weights(self, size: tuple[int, int], draws: jax.Array) -> jax.Array:
        """Return the weight of an example's own image in each pixel, ``(H, W, 1)``.

        The share of its label is the mean: with CutMix, the area outside the box.
        """
        apply, switch, share, y, x = draws
        height, width = size
        uniform = jnp.ones((height, width, 1))
        mixup = uniform * beta(self.mixup, share) if self.mixup else uniform
        if self.cutmix:
            # A box with the area of the other image, centered at any pixel and clipped.
            side = jnp.sqrt(1 - beta(self.cutmix, share))
            # As in the authors' code: the same number of whole pixels on both sides of the center.
            rows, columns = (2 * jnp.floor(jnp.trunc(n * side) / 2) for n in (height, width))
            top = jnp.floor(height * y) - rows / 2
            left = jnp.floor(width * x) - columns / 2
            outside = 1.0 - box(height, width, top, left, rows, columns)
            cutting = switch < self.switch if self.mixup else True
            mixup = jnp.where(cutting, outside, mixup)
        return jnp.where(apply < self.probability, mixup, 1.0)


def check_even(count: int) -> None:
    """Raise UsageError if ``count`` examples, a device's share of the batch, cannot be paired."""
    if count % 2:
        raise UsageError(
            f"mixup and cutmix pair neighbors, but a device's share of the batch, {count},"
            " is odd; choose a batch_size that is an even multiple of the number of devices"
        )


def swap_pairs(array: jax.Array) -> jax.Array:
    """Return ``array`` ``(N, …)`` with neighbors 2j and 2j + 1 exchanged."""
    pairs = array.reshape(len(array) // 2, 2, *array.shape[1:])
    return pairs[:, ::-1].reshape(array.shape)


def beta(alpha: float, draw: jax.Array) -> jax.Array:
    """Transform a uniform random number into one of Beta(α, α), by a table of quantiles.

    Exact at 1,025 points and linear in between; avoids compiling and running a rejection loop.
    """
    from scipy.special import betaincinv  # takes 0.15 s, and few recipes mix images

    points = 1024
    table = betaincinv(alpha, alpha, np.linspace(0, 1, points + 1))
    table = jnp.asarray(table, jnp.float32)
    place = draw * points
    below = jnp.floor(place).astype(int)
    return table[below] + (place - below) * (table[below + 1] - table[below])
