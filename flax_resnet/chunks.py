"""Work on a batch of images part by part, so that what lies between stays in the cache."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def count(x: jax.Array, most_bytes: int) -> int:
    """How many parts of the batch are done one after another: at most one an image."""
    return min(len(x), -(-x.size * x.dtype.itemsize // most_bytes))


def split(x: jax.Array, parts: int) -> jax.Array:
    """``(parts, N / parts, H, W, C)``, filled up with images of zeros."""
    each = -(-len(x) // parts)
    x = jnp.pad(x, ((0, parts * each - len(x)), (0, 0), (0, 0), (0, 0)))
    return x.reshape(parts, each, *x.shape[1:])


def over(function: Callable[[jax.Array], jax.Array], x: jax.Array, most_bytes: int) -> jax.Array:
    """``function(x)`` of ``(N, H, W, C)``, in parts of at most ``most_bytes`` of ``x``."""
    parts = count(x, most_bytes)
    if parts <= 1:
        return function(x)
    y = lax.map(function, split(x, parts))
    return y.reshape(-1, *y.shape[2:])[: len(x)]
