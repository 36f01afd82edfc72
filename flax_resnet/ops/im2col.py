"""Convolutions of small maps by im2col: what a kernel sees of them, laid out.

XLA:CPU's own convolutions take up to eighty times as long as these on maps of 2×2 pixels, and so
do their gradients by the images of what leads to such maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]  # before and after, of rows and of columns


def conv(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """``(N, H, W, C)`` with ``(kh, kw, C, K)``, as one product of all patches with the kernel.

    The patches, ``(N, rows, columns, kh kw C)``, take the memory of as many maps as the kernel has
    places.
    """
    height, width, channels, outputs = kernel.shape
    rows, columns = output_size(x, kernel, strides, padding)
    down, right = strides
    around = [(before, after, 0) for before, after in padding]  # less than 0 cuts off
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    seen = [
        x[:, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(seen, -1) @ kernel.reshape(height * width * channels, outputs)


def output_size(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding
) -> tuple[int, int]:
    """Rows and columns of a convolution's output."""
    rows, columns = (
        max(0, (size + before + after - length) // stride + 1)
        for size, length, stride, (before, after) in zip(
            x.shape[1:3], kernel.shape[:2], strides, padding, strict=True
        )
    )
    return rows, columns


def without_padding(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding
) -> tuple[jax.Array, Padding]:
    """Cuts off the outer rows and columns of a kernel that see nothing but padding.

    On a map of one pixel that leaves a 3×3 kernel's middle, a ninth of the work.
    """
    cut = []
    for axis, (stride, (before, after)) in enumerate(zip(strides, padding, strict=True)):
        size, length = x.shape[axis + 1], kernel.shape[axis]
        starts = range(-before, size + after - length + 1, stride)
        seen = [tap for tap in range(length) if any(0 <= start + tap < size for start in starts)]
        first, last = (seen[0], seen[-1]) if seen else (0, length - 1)
        kernel = lax.slice_in_dim(kernel, first, last + 1, axis=axis)
        cut.append((before - first, after - (length - 1 - last)))
    return kernel, tuple(cut)
