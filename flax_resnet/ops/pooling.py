"""Max-pooling with a custom gradient, used on CPUs (float32) and GPUs.

XLA's own gradient carries the position of every pixel through the windows, which takes a CPU about
ten times as long, and scatters on GPUs. The custom one finds the maximum in the map again.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


def max_pool(x: jax.Array, padding: int, stride: int = 2) -> jax.Array:
    """Return the 3×3 max-pooling of ``(N, H, W, C)``, padded by 0 or 1 pixels."""
    return nn.max_pool(x, (3, 3), strides=(stride, stride), padding=((padding, padding),) * 2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool_custom_gradient(x: jax.Array, padding: int) -> jax.Array:
    """Return :func:`max_pool` with stride 2.

    The gradient goes to each window's first maximum, as in XLA.
    """
    return max_pool(x, padding)


def _forward(x: jax.Array, padding: int):
    # Without the barrier XLA may recompute the map for the search, and if it rounds differently,
    # not find the maximum, whose gradient would be lost.
    x = lax.optimization_barrier(x)
    y = max_pool(x, padding)
    return y, (x, y)


def _backward(padding: int, saved, gradient: jax.Array):
    x, y = saved
    sides = (padding, padding)
    padded = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=-jnp.inf)
    rows, columns = y.shape[1:3]
    free = jnp.ones(y.shape, bool)  # windows whose maximum is not found yet
    taps = []
    for i in range(3):
        taps.append([])
        for j in range(3):
            value = padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            first = free & (value == y)
            free &= ~first
            taps[-1].append(jnp.where(first, gradient, 0))
    rows_of_pixels = [_interleave(*row, 2, x.shape[2], padding) for row in taps]
    return (_interleave(*rows_of_pixels, 1, x.shape[1], padding),)


max_pool_custom_gradient.defvjp(_forward, _backward)


def _interleave(
    first: jax.Array, middle: jax.Array, last: jax.Array, axis: int, size: int, padding: int
) -> jax.Array:
    """Add the gradients of the windows' three positions into a row of ``size`` pixels.

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
