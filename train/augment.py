"""Augmentation and normalisation inside the jitted step: uint8 images in, floats out.

Every example draws from its own key, so that what happens to it does not depend on how
the batch is spread over devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Augment:
    """What happens to training images; see the ``augment.*`` keys of ``train.config``."""

    flip: bool = False
    pad_crop: int = 0

    def __call__(self, images: jax.Array, keys: jax.Array) -> jax.Array:
        """Augments uint8 ``(N, H, W, C)`` images, one key each; same shape and type."""
        if not (self.flip or self.pad_crop):
            return images
        return jax.vmap(self._one)(images, keys)

    def _one(self, image: jax.Array, key: jax.Array) -> jax.Array:
        # One draw an image: compiling threefry costs most of a second a draw on CPUs.
        flip, down, across = jax.random.uniform(key, (3,))
        if self.pad_crop:
            # Shifts by −pad … pad, each as likely; the border is black.
            pad, places = self.pad_crop, 2 * self.pad_crop + 1
            padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
            start = ((down * places).astype(int), (across * places).astype(int), 0)
            image = jax.lax.dynamic_slice(padded, start, image.shape)
        if self.flip:
            image = jnp.where(flip < 0.5, image[:, ::-1], image)
        return image


def example_keys(seed: int, step: jax.Array, position: jax.Array) -> jax.Array:
    """Keys ``(N,)`` of the examples at ``position`` ``(N,)`` of the global batch ``step``."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(position)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 ``(N, H, W, C)`` to float32: ``(image / 255 - mean) / std``, channel by channel."""
    # As one multiplication and one addition, which the compiler fuses into what follows.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    shift = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return images.astype(jnp.float32) * scale + shift
