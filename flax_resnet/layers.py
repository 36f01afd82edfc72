"""Convolutions, activations and initializers of the networks.

Blocks and stems take layers as factories: calling one with a layer's arguments returns a Linen
module. ``functools.partial`` sets the arguments that a whole network shares (dtype, epsilon, …).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from flax_resnet import ops
from flax_resnet.registry import ACTIVATIONS

BIASES = ("none", "unnormalized", "all")
STANDARDIZE_EPSILON = 1e-8


class PartError(ValueError):
    """An own part of a network does not fit it; the message names the part."""


# A layer factory: returns a Linen module for the layer's arguments.
Layer = Callable[..., nn.Module]

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
