"""Mixup and CutMix: two images become one, and its target belongs to both labels.

Neighbours mix: example 2j of the global batch with example 2j + 1, each with the other, by one
draw for both. timm (``mode="pair"``) mixes example i with the one as far from the batch's end;
in a shuffled batch that is the same in distribution, but it pairs examples of different devices
or, if each device turns its own share around, different examples on each number of devices.
Neighbours are on one device whenever its share of the batch is even, so nothing is exchanged,
and the mixed batch is a function of seed and step alone.

Each pair draws for itself, where timm's default draws once a batch. An example's
distribution is the same; a batch holds the whole range of mixtures and not one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from train.data.augment.image_ops import box
from train.runtime.errors import UsageError


class Targets(NamedTuple):
    """What a batch shows: ``label`` int ``(N,)``, and of mixed images two labels.

    ``weight`` ``(N,)`` is the share of ``label``, what is left that of ``other`` ``(N,)``;
    both are None where nothing is mixed.
    """

    label: jax.Array
    other: jax.Array | None = None
    weight: jax.Array | None = None

    def dominant(self) -> jax.Array:
        """Labels ``(N,)`` with the larger share: what a right answer names."""
        if self.other is None:
            return self.label
        return jnp.where(self.weight < 0.5, self.other, self.label)


@dataclass(frozen=True)
class Mixup:
    """Mixup (arXiv:1710.09412) with ``mixup`` > 0, CutMix (arXiv:1905.04899) with ``cutmix`` > 0.

    Both numbers are the α of Beta(α, α), from which the share of the one image is drawn.
    ``probability`` is that of mixing at all, ``switch`` that of CutMix where both are on.
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
        """Mixes uint8 ``(N, H, W, C)`` by ``draws`` ``(N, 5)`` in 0…1; of a pair the first counts.

        Raises UsageError where N is odd.
        """
        check_even(len(images))
        weights = jax.vmap(lambda draw: self._weights(images.shape[1:3], draw))(draws[::2])
        weights = jnp.repeat(weights, 2, axis=0)  # (N, H, W, 1)
        own, partner = images.astype(jnp.float32), swapped(images).astype(jnp.float32)
        mixed = jnp.round(partner + weights * (own - partner)).astype(jnp.uint8)
        return mixed, Targets(labels, swapped(labels), weights.mean((1, 2, 3)))

    def _weights(self, size: tuple[int, int], draws: jax.Array) -> jax.Array:
        """The share of an example's own image in each pixel of a pair, ``(H, W, 1)``.

        The label's share is the mean of these: with CutMix, what is left outside the box.
        """
        apply, switch, share, y, x = draws
        height, width = size
        uniform = jnp.ones((height, width, 1))
        mixup = uniform * beta(self.mixup, share) if self.mixup else uniform
        if self.cutmix:
            # A box of the rest's area around any pixel; what juts out is lost.
            side = jnp.sqrt(1 - beta(self.cutmix, share))
            # As the authors' code has it: the same whole pixels to both sides of the middle.
            rows, columns = (2 * jnp.floor(jnp.trunc(n * side) / 2) for n in (height, width))
            top = jnp.floor(height * y) - rows / 2
            left = jnp.floor(width * x) - columns / 2
            outside = 1.0 - box(height, width, top, left, rows, columns)
            cutting = switch < self.switch if self.mixup else True
            mixup = jnp.where(cutting, outside, mixup)
        return jnp.where(apply < self.probability, mixup, 1.0)


def check_even(count: int) -> None:
    """Raises UsageError where ``count`` examples, a device's share, can't be paired."""
    if count % 2:
        raise UsageError(
            f"mixup and cutmix pair neighbours, and a device's share of the batch, {count},"
            " is odd; choose a batch_size that is an even multiple of the number of devices"
        )


def swapped(array: jax.Array) -> jax.Array:
    """``array`` ``(N, …)`` with each two neighbours, 2j and 2j + 1, exchanged."""
    pairs = array.reshape(len(array) // 2, 2, *array.shape[1:])
    return pairs[:, ::-1].reshape(array.shape)


def beta(alpha: float, draw: jax.Array) -> jax.Array:
    """A draw of Beta(α, α) from one in 0…1, by a table of quantiles.

    Exact at 1,025 points and straight between them: no rejection loop to compile or to run.
    """
    points = 1024
    table = scipy.special.betaincinv(alpha, alpha, np.linspace(0, 1, points + 1))
    table = jnp.asarray(table, jnp.float32)
    place = draw * points
    below = jnp.floor(place).astype(int)
    return table[below] + (place - below) * (table[below + 1] - table[below])
