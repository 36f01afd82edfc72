"""Convolutions of small maps by im2col: one product of the extracted patches with the kernel.

Used on CPUs for outputs of at most 4 pixels, or of fewer than 128 in the whole batch. XLA:CPU's own
convolutions take up to eighty times as long on maps of 2×2 pixels, and so do the input gradients of
convolutions whose outputs are that small.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]  # (before, after) of rows and of columns


def conv(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """Convolve ``(N, H, W, C)`` with ``(kh, kw, C, K)``.

    The patches ``(N, rows, columns, kh kw C)`` take ``kh kw`` times the memory of a map.
    """
    height, width, channels, outputs = kernel.shape
    rows, columns = output_size(x, kernel, strides, padding)
    down, right = strides
    around = [(before, after, 0) for before, after in padding]  # negative padding crops
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    patches = [
        x[:, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(patches, -1) @ kernel.reshape(height * width * channels, outputs)


def output_size(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding
) -> tuple[int, int]:
    """Return the rows and columns of a convolution's output."""
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
    """Return the kernel without rows and columns that cover only padding, and the new padding.

    On a map of one pixel this leaves the center of a 3×3 kernel, a ninth of the work.
    """
    cropped = []
    for axis, (stride, (before, after)) in enumerate(zip(strides, padding, strict=True)):
        size, length = x.shape[axis + 1], kernel.shape[axis]
        starts = range(-before, size + after - length + 1, stride)
        used = [tap for tap in range(length) if any(0 <= start + tap < size for start in starts)]
        first, last = (used[0], used[-1]) if used else (0, length - 1)
        kernel = lax.slice_in_dim(kernel, first, last + 1, axis=axis)
        cropped.append((before - first, after - (length - 1 - last)))
    return kernel, tuple(cropped)
