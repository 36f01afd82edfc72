"""The layers that the networks are built of, and their initialisers.

Blocks and stems take them as factories: a call with a layer's arguments gives a linen
module, and ``functools.partial`` sets what a whole network shares (types, epsilon, …).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from flax_resnet import ops
from flax_resnet.ops.norm import BatchNorm

BIASES = ("none", "unnormalized", "all")
STANDARDIZE_EPSILON = 1e-8

# A factory of layers: called with the layer's arguments it returns a linen module.
Layer = Callable[..., nn.Module]

# He et al. 2015 (arXiv:1502.01852): variance 2 / fan_out keeps gradients' scale.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# Small in scale, as torchvision's linear kernels: uniform in ±1/sqrt(fan_in).
uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

linear = partial(nn.Dense, kernel_init=uniform)


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    *,
    normalized: bool = True,
    bias: str = "none",
    kernel_init: Callable = he_normal,
    **kwargs,
) -> nn.Conv:
    """A square convolution, padded by ``dilation * (kernel // 2)`` on every side.

    Takes ``(N, H, W, C)`` to ``(N, ceil(H / stride), ceil(W / stride), features)`` for odd
    kernels. ``bias`` says which convolutions have one: ``"none"``, ``"all"``, or
    ``"unnormalized"``, those whose output no norm takes at once (``normalized=False``).
    """
    pad = dilation * (kernel // 2)
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=bias == "all" or (bias == "unnormalized" and not normalized),
        kernel_init=kernel_init,
        conv_general_dilated=ops.conv_general_dilated,
        **kwargs,
    )


def standardize(inputs, kernel, bias, *, dtype):
    """Weight standardisation (Qiao et al. 2019, arXiv:1903.10520, section 3).

    For ``nn.Conv``'s ``promote_dtype``: every output channel's ``(kh, kw, C)`` weights get
    mean 0 and variance 1 in float32, before everything is cast to ``dtype``.
    """
    mean, variance = kernel.mean((0, 1, 2)), kernel.var((0, 1, 2))
    kernel = (kernel - mean) * jax.lax.rsqrt(variance + STANDARDIZE_EPSILON)
    return promote_dtype(inputs, kernel, bias, dtype=dtype)


standardized_conv = partial(conv, promote_dtype=standardize)


# Factories of norms are told whether their norm takes a convolution's output (``after_conv``).


def batch_norm(*, after_conv: bool = True, **fields) -> BatchNorm:
    """Batch norm (arXiv:1502.03167), with the moments of torchvision's."""
    # Flax's momentum is PyTorch's 1 - momentum: 0.9 here is torchvision's 0.1.
    return BatchNorm(**dict(momentum=0.9, epsilon=1e-5) | fields)


class GroupNorm(nn.GroupNorm):
    """Group norm (Wu & He 2018, arXiv:1803.08494) in batch norm's place: has no statistics."""

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        return super().__call__(x)


def group_norm(*, after_conv: bool = True, **fields) -> GroupNorm:
    """Group norm of 32 groups."""
    # The variance as E[(x - mean)²]: E[x²] - mean² loses digits where groups are far from zero.
    return GroupNorm(**dict(num_groups=32, epsilon=1e-5, use_fast_variance=False) | fields)


class ScaleAndShift(nn.Module):
    """``scale * x + bias``, channel by channel: what a batch norm computes in evaluation."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return x * scale.astype(self.dtype) + bias.astype(self.dtype)


class Identity(nn.Module):
    """What is left of a norm that a convolution has taken in."""

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        return x


def folded_norm(
    *, after_conv: bool = True, name: str | None = None, dtype: jnp.dtype = jnp.float32, **_
) -> nn.Module:
    """In batch norm's place after :func:`flax_resnet.folding.fold_batch_norm`."""
    return Identity(name=name) if after_conv else ScaleAndShift(dtype, name=name)


class SqueezeExcite(nn.Module):
    """Scales each channel by what the pooled map tells (Hu et al. 2017, arXiv:1709.01507, 3).

    Keeps the shape ``(N, H, W, C)``. The hidden layer has ``ratio * C`` units, rounded to
    a multiple of 8, at least 8.
    """

    ratio: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = max(8, int(x.shape[-1] * self.ratio + 4) // 8 * 8)
        gate = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        gate = ops.relu(linear(hidden, dtype=self.dtype, name="reduce")(gate))
        gate = linear(x.shape[-1], dtype=self.dtype, name="expand")(gate)
        return x * nn.sigmoid(gate)
