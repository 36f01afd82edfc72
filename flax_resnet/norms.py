"""Norms of the networks.

A norm is given as a factory: calling it with a norm's fields returns a Linen module that is called
with a map and ``use_running_average``.
"""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.ops.norm import BatchNorm
from flax_resnet.registry import NORMS

register_norm = NORMS.register

# Norm factories take ``after_conv``, whether the input is a convolution's output; only
# ``folded_norm`` uses it.


@register_norm("batch")
def batch_norm(*, after_conv: bool = True, **fields) -> BatchNorm:
    """Return batch norm (arXiv:1502.03167) with torchvision's momentum and epsilon."""
    # Flax's momentum is PyTorch's 1 - momentum: 0.9 here is torchvision's 0.1.
    return BatchNorm(**dict(momentum=0.9, epsilon=1e-5) | fields)


@functools.cache
def with_batch_norm_call(cls: type[nn.Module]) -> type[nn.Module]:
    """Return a class of norms, with batch norm's call signature if it has another one."""
    if "use_running_average" in inspect.signature(cls.__call__).parameters:
        return cls

    class Norm(cls):
        def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
            return super().__call__(x)

    return Norm


# Norms without running statistics compute the variance as E[(x − mean)²] instead of
# E[x²] − mean², which loses precision when the mean is far from zero.


@register_norm("group")
def group_norm(*, after_conv: bool = True, **fields) -> nn.GroupNorm:
    """Return group norm (Wu & He 2018, arXiv:1803.08494) with 32 groups."""
    defaults = dict(num_groups=32, epsilon=1e-5, use_fast_variance=False)
    return with_batch_norm_call(nn.GroupNorm)(**defaults | fields)


@register_norm("layer")
def layer_norm(*, after_conv: bool = True, **fields) -> nn.LayerNorm:
    """Return layer norm (arXiv:1607.06450) over the channels of each pixel, as in ConvNeXt."""
    return with_batch_norm_call(nn.LayerNorm)(
        **dict(epsilon=1e-5, use_fast_variance=False) | fields
    )


class ScaleAndShift(nn.Module):
    """``scale * x + bias`` per channel, as batch norm computes in evaluation."""

    dtype: jnp.dtype = jnp.float32
    scale_init: Callable = nn.initializers.ones
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        """Scale and shift ``(N, H, W, C)``; ``use_running_average`` is ignored."""
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", self.bias_init, shape)
        return x * scale.astype(self.dtype) + bias.astype(self.dtype)


class Identity(nn.Module):
    """Placeholder for a norm that is folded into a convolution."""

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        """Return ``x``."""
        return x


def folded_norm(
    *, after_conv: bool = True, name: str | None = None, dtype: jnp.dtype = jnp.float32, **_
) -> nn.Module:
    """Return the replacement for batch norm after :func:`flax_resnet.folding.fold_batch_norm`."""
    return Identity(name=name) if after_conv else ScaleAndShift(dtype, name=name)


def unfolded_norm(**fields) -> nn.Module:
    """Return the replacement for batch norm where it cannot be folded into a convolution."""
    return folded_norm(**fields | {"after_conv": False})
