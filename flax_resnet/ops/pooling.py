"""Max-pooling whose gradient takes few passes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


def max_pool(x: jax.Array, padding: int) -> jax.Array:
    """3×3, stride 2, of ``(N, H, W, C)``; ``padding`` 0 or 1 on every side."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((padding, padding),) * 2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool_first(x: jax.Array, padding: int) -> jax.Array:
    """:func:`max_pool`, whose gradient goes to the first of a window's greatest, as XLA has it.

    XLA's own form carries every pixel's place through the windows, which takes a CPU about ten
    times as long, and scatters on GPUs. This one looks for the greatest in the map again.
    """
    return max_pool(x, padding)


def _forward(x: jax.Array, padding: int):
    # Without the barrier XLA may compute the map anew to look in it, and, where it rounds that
    # otherwise, not find the greatest, whose gradient would be lost.
    x = lax.optimization_barrier(x)
    y = max_pool(x, padding)
    return y, (x, y)


def _backward(padding: int, saved, gradient: jax.Array):
    x, y = saved
    sides = (padding, padding)
    padded = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=-jnp.inf)
    rows, columns = y.shape[1:3]
    free = jnp.ones(y.shape, bool)  # windows that have not found their greatest yet
    taps = []
    for i in range(3):
        taps.append([])
        for j in range(3):
            value = padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            first = free & (value == y)
            free &= ~first
            taps[-1].append(jnp.where(first, gradient, 0))
    by_row = [_interleave(*row, 2, x.shape[2], padding) for row in taps]
    return (_interleave(*by_row, 1, x.shape[1], padding),)


max_pool_first.defvjp(_forward, _backward)


def _interleave(
    first: jax.Array, middle: jax.Array, last: jax.Array, axis: int, size: int, padding: int
) -> jax.Array:
    """Adds what windows send to their three places into a row of ``size`` pixels.

    Window n covers pixels 2n - padding to 2n - padding + 2: its last is the next one's first.
    """

    def pad(x, before, after):
        return lax.pad(
            x,
            jnp.zeros((), x.dtype),
            [(before, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)],
        )

    shared = pad(first, 0, 1) + pad(last, 1, 0)
    pairs = jnp.stack([shared, pad(middle, 0, 1)], axis + 1)
    shape = list(middle.shape)
    shape[axis] = 2 * pairs.shape[axis]
    pixels = pairs.reshape(shape)
    pixels = pad(pixels, 0, max(0, size + padding - pixels.shape[axis]))
    return lax.slice_in_dim(pixels, padding, padding + size, axis=axis)
