"""3×3 convolutions of few channels, as one matrix product and two shifted additions.

Used on CPUs for at most 16 input and output channels. Matrix products are efficient with a long
inner dimension and many output columns, and 16 channels provide too few. So the product sums over
the kernel's three rows at once and computes separate results for its three columns, which are then
shifted and added:

    y[i, j] = p₀[i, j - 1] + p₁[i, j] + p₂[i, j + 1],   pₜ[i, j] = Σᵣ x[i + r - 1, j] g[r, t]

With 16 channels this takes three quarters of the time of XLA:CPU's own convolution, and two fifths
with the 3 channels of an image. The input gradient is again such a convolution; for the kernel
gradient XLA's own is fastest.
"""

import jax
import jax.numpy as jnp
from jax import lax

from flax_resnet.ops import chunks

_CHUNK = chunks.MaxBytes(one_core=2**18, many_cores=2**19)


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve ``(N, H, W, C)`` with ``(3, 3, C, K)`` to ``(N, H, W, K)``: stride 1, padding 1."""
    channels, outputs = kernel.shape[2:]
    columns = kernel.transpose(0, 2, 1, 3).reshape(3 * channels, 3 * outputs)

    def convolve(x):
        height = x.shape[1]
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
        rows = jnp.concatenate([x[:, row : row + height] for row in range(3)], -1)
        left, middle, right = jnp.split(rows @ columns, 3, -1)
        return middle + _shift(left, 1) + _shift(right, -1)

    return chunks.map_chunks(convolve, x, _CHUNK)


def _forward(x: jax.Array, kernel: jax.Array):
    return conv3x3(x, kernel), (x, kernel)


def _backward(saved, gradient: jax.Array):
    x, kernel = saved
    _, kernel_vjp = jax.vjp(lambda kernel: _direct(x, kernel), kernel)
    return conv3x3(gradient, kernel[::-1, ::-1].swapaxes(2, 3)), *kernel_vjp(gradient)


conv3x3.defvjp(_forward, _backward)


def _direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    padding = ((1, 1), (1, 1))
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers)


def _shift(x: jax.Array, by: int) -> jax.Array:
    """Return ``x`` shifted to the right and filled with zeros."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), (by, -by, 0), (0, 0, 0)))
