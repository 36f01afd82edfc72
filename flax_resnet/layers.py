"""Layers of the networks and their initializers.

Blocks and stems take layers as factories: calling one with a layer's arguments returns a Linen
module. ``functools.partial`` sets the arguments that a whole network shares (dtype, epsilon, …).
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from flax_resnet import ops
from flax_resnet.ops.norm import BatchNorm
from flax_resnet.registry import ACTIVATIONS, NORMS

BIASES = ("none", "unnormalized", "all")
STANDARDIZE_EPSILON = 1e-8


class PartError(ValueError):
    """An own part of a network does not fit it; the message names the part."""


# A layer factory: returns a Linen module for the layer's arguments.
Layer = Callable[..., nn.Module]

register_norm = NORMS.register
register_activation = ACTIVATIONS.register


@dataclasses.dataclass(frozen=True)
class VarianceScaling:
    """Initializer of kernels with variance ``scale / fan``, for JAX and for NumPy.

    :meth:`__call__` has the interface of a JAX initializer; :meth:`sample` samples the same
    distribution with NumPy, without compiling.

    Attributes:
      scale: variance times fan.
      mode: ``"fan_in"`` or ``"fan_out"``.
      distribution: ``"normal"`` or ``"uniform"``.
    """

    scale: float
    mode: str
    distribution: str

    def __call__(self, key, shape, dtype=jnp.float32) -> jax.Array:
        """Sample a kernel ``(…, in, out)`` with a JAX key."""
        init = nn.initializers.variance_scaling(self.scale, self.mode, self.distribution)
        return init(key, shape, dtype)

    def sample(self, rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        """Sample a float32 kernel ``(…, in, out)`` with a NumPy generator."""
        fan = math.prod(shape[:-2]) * shape[-2 if self.mode == "fan_in" else -1]
        if self.distribution == "normal":
            return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(self.scale / fan))
        bound = math.sqrt(3 * self.scale) / math.sqrt(fan)
        return rng.uniform(-bound, bound, shape).astype(np.float32)


# He et al. 2015 (arXiv:1502.01852): variance 2 / fan_out preserves the scale of gradients.
he_normal = VarianceScaling(2.0, "fan_out", "normal")

# torchvision's scale of linear kernels: uniform in ±1/sqrt(fan_in).
uniform = VarianceScaling(1 / 3, "fan_in", "uniform")

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
    kernel_init: Callable | None = None,
    module: Layer = nn.Conv,
    **kwargs,
) -> nn.Module:
    """Return a square convolution, padded by ``dilation * (kernel // 2)`` on every side.

    For odd kernels, it maps ``(N, H, W, C)`` to
    ``(N, ceil(H / stride), ceil(W / stride), features)``.

    Args:
      features: output channels.
      kernel: kernel size.
      stride: stride in both directions.
      dilation: kernel dilation in both directions.
      groups: number of groups; as many as input channels and ``features`` make a depthwise
        convolution.
      normalized: whether a norm directly follows.
      bias: which convolutions have a bias: ``"none"``, ``"all"``, or ``"unnormalized"``, those
        with ``normalized=False``.
      kernel_init: initializer of the kernel; default: :data:`he_normal`.
      module: a class with the fields of ``nn.Conv``, or a partial of one, whose arguments take
        precedence over those that this function derives.
      **kwargs: further fields of ``nn.Conv``.
    """
    if features % groups:
        raise ValueError(f"groups={groups} must divide the {features} channels of a convolution")
    pad = dilation * (kernel // 2)
    fields = dict(
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=bias == "all" or (bias == "unnormalized" and not normalized),
        kernel_init=he_normal,
    )
    cls, given = getattr(module, "func", module), getattr(module, "keywords", {})
    if issubclass(cls, nn.Conv):
        fields["conv_general_dilated"] = ops.conv_general_dilated
    fields |= kwargs | given
    if kernel_init is not None:  # such as zeros for ``zero_init_last``
        fields["kernel_init"] = kernel_init
    return cls(features, (kernel, kernel), **fields)


def standardize(inputs, kernel, bias, *, dtype):
    """Standardize the weights (Qiao et al. 2019, arXiv:1903.10520, section 3).

    For the ``promote_dtype`` field of ``nn.Conv``: the ``(kh, kw, C)`` weights of every output
    channel get mean 0 and variance 1 in float32, before everything is cast to ``dtype``.
    """
    mean, variance = kernel.mean((0, 1, 2)), kernel.var((0, 1, 2))
    kernel = (kernel - mean) * jax.lax.rsqrt(variance + STANDARDIZE_EPSILON)
    return promote_dtype(inputs, kernel, bias, dtype=dtype)


standardized_conv = partial(conv, promote_dtype=standardize)


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


# ``"relu"`` uses the backend-specific operations; the gradient of the others is JAX's.
register_activation("relu", ops.relu)
for _name in ("relu6", "leaky_relu", "elu", "silu", "hard_silu", "mish"):
    register_activation(_name, getattr(jax.nn, _name))


@register_activation("gelu")
def gelu(x: jax.Array) -> jax.Array:
    """Return the Gaussian error linear unit (arXiv:1606.08415) by erf, as PyTorch does."""
    return jax.nn.gelu(x, approximate=False)


@register_activation("gelu_tanh")
def gelu_tanh(x: jax.Array) -> jax.Array:
    """Return the approximation of :func:`gelu` by tanh, the default of ``nn.gelu``."""
    return jax.nn.gelu(x, approximate=True)


# Functions of JAX, as Flax exports them, and those that the network uses instead.
SAME_FUNCTIONS = ((jax.nn.relu, ops.relu), (jax.nn.gelu, gelu_tanh))


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
