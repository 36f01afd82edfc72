"""Computation on a batch in chunks, so that intermediate results stay in the CPU's cache."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class MaxBytes(NamedTuple):
    """Maximum chunk size in bytes, for one core and for several cores.

    With several cores, each operation ends in a synchronization, so larger chunks can be faster
    even if they no longer fit in the cache. Measured on one core and on two.
    """

    one_core: int
    many_cores: int


def count(x: jax.Array, limit: MaxBytes) -> int:
    """Return the number of chunks of the batch, at most one per image."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    max_bytes = limit.one_core if cores == 1 else limit.many_cores
    return min(len(x), -(-x.size * x.dtype.itemsize // max_bytes))


def split(x: jax.Array, chunks: int) -> jax.Array:
    """Return ``(chunks, ceil(N / chunks), H, W, C)``, zero-padded at the end."""
    size = -(-len(x) // chunks)
    x = jnp.pad(x, ((0, chunks * size - len(x)), (0, 0), (0, 0), (0, 0)))
    return x.reshape(chunks, size, *x.shape[1:])


def map_chunks(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, limit: MaxBytes
) -> jax.Array:
    """Return ``function(x)`` of ``(N, H, W, C)``, computed in chunks of at least one image.

    ``function`` must treat images independently: the last chunk is zero-padded.
    """
    chunks = count(x, limit)
    if chunks <= 1:
        return function(x)
    y = lax.map(function, split(x, chunks))
    return y.reshape(-1, *y.shape[2:])[: len(x)]
