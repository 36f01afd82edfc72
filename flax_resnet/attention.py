"""Channel attention: gates on the channels of a block's output."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import ops
from flax_resnet.layers import linear


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
