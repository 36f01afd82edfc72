"""Channel attention: gates on the channels of a block's output."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import ops
from flax_resnet.layers import linear, uniform


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channel gates from the pooled map (arXiv:1709.01507, section 3).

    Keeps the shape ``(N, H, W, C)``. The hidden layer has ``ratio * C`` units, rounded to
    a multiple of 8, at least 8.
    """

    ratio: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scale the channels of ``(N, H, W, C)``."""
        hidden = max(8, int(x.shape[-1] * self.ratio + 4) // 8 * 8)
        gate = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        gate = ops.relu(linear(hidden, dtype=self.dtype, name="reduce")(gate))
        gate = linear(x.shape[-1], dtype=self.dtype, name="expand")(gate)
        return x * nn.sigmoid(gate)


class EfficientChannelAttention(nn.Module):
    """Efficient channel attention: gates from neighboring channels (arXiv:1910.03151, section 3).

    Keeps the shape ``(N, H, W, C)``. Each gate is the sigmoid of a convolution of the pooled map
    over the channels, without bias, whose kernel size grows with the logarithm of C.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scale the channels of ``(N, H, W, C)``."""
        gate = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)[..., None]
        size = kernel_size(x.shape[-1])
        conv = nn.Conv(
            1,
            (size,),
            padding=size // 2,
            use_bias=False,
            kernel_init=uniform,
            dtype=self.dtype,
            name="conv",
        )
        return x * nn.sigmoid(conv(gate))[:, None, None, :, 0]


def kernel_size(channels: int) -> int:
    """Return the odd kernel size for a number of channels (arXiv:1910.03151, section 3).

    With the paper's γ = 2 and b = 1; at least 3, as in timm.
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size + 1 - size % 2)
