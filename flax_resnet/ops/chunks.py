"""Work on a batch of images part by part, so that what lies between stays in the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Bytes(NamedTuple):
    """Of the images of a part, on one core and on several.

    Several cores share each operation and wait for each other at its end, so for them parts that
    leave the cache can be better than many ends. Measured on one core and on two.
    """

    one_core: int
    several: int


def count(x: jax.Array, most: Bytes) -> int:
    """How many parts of the batch are done one after another: at most one an image."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    most_bytes = most.one_core if cores == 1 else most.several
    return min(len(x), -(-x.size * x.dtype.itemsize // most_bytes))


def split(x: jax.Array, parts: int) -> jax.Array:
    """``(parts, N / parts, H, W, C)``, filled up with images of zeros."""
    each = -(-len(x) // parts)
    x = jnp.pad(x, ((0, parts * each - len(x)), (0, 0), (0, 0), (0, 0)))
    return x.reshape(parts, each, *x.shape[1:])


def over(function: Callable[[jax.Array], jax.Array], x: jax.Array, most: Bytes) -> jax.Array:
    """``function(x)`` of ``(N, H, W, C)``, in parts of ``most``, at least an image each."""
    parts = count(x, most)
    if parts <= 1:
        return function(x)
    y = lax.map(function, split(x, parts))
    return y.reshape(-1, *y.shape[2:])[: len(x)]
