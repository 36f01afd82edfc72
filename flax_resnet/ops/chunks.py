"""Computation on a batch in chunks, so that intermediate results stay in the CPU's cache."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class MaxBytes(NamedTuple):
    """Maximum bytes of a chunk's images, on one core and on several.

    Several cores share each operation and wait for each other at its end, so larger chunks that
    leave the cache can be faster than more synchronization. Measured on one core and on two.
    """

    one_core: int
    several: int


def count(x: jax.Array, limit: MaxBytes) -> int:
    """Return the number of chunks of the batch, at most one per image."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    max_bytes = limit.one_core if cores == 1 else limit.several
    return min(len(x), -(-x.size * x.dtype.itemsize // max_bytes))


def split(x: jax.Array, chunks: int) -> jax.Array:
    """Return ``(chunks, N / chunks, H, W, C)``, padded with images of zeros."""
    size = -(-len(x) // chunks)
    x = jnp.pad(x, ((0, chunks * size - len(x)), (0, 0), (0, 0), (0, 0)))
    return x.reshape(chunks, size, *x.shape[1:])


def map_chunks(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, limit: MaxBytes
) -> jax.Array:
    """Return ``function(x)`` of ``(N, H, W, C)``, computed in chunks of at least one image."""
    chunks = count(x, limit)
    if chunks <= 1:
        return function(x)
    y = lax.map(function, split(x, chunks))
    return y.reshape(-1, *y.shape[2:])[: len(x)]
