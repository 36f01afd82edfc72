"""Batch norm, and a gradient of it that makes two passes over the map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from flax_resnet import ops


class BatchNorm(nn.Module):
    """Batch norm of maps ``(N, H, W, C)`` (arXiv:1502.03167), as ``nn.BatchNorm`` computes it.

    Parameters ``scale`` and ``bias``, running ``mean`` and ``var`` in ``batch_stats``, in float32:
    ``momentum`` is the share of the old ones, and the variance that of the batch, not corrected.
    With ``use_running_average`` these normalise; else the batch's own statistics, over all devices
    along ``axis_name`` where there is one. Computes in float32 at least and gives ``dtype``.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None
    axis_name: str | None = None
    scale_init: Callable = nn.initializers.ones
    bias_init: Callable = nn.initializers.zeros
    mean_init: Callable = nn.initializers.zeros
    var_init: Callable = nn.initializers.ones
    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        average = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        channels = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", self.mean_init, None, channels)
        variance = self.variable("batch_stats", "var", self.var_init, None, channels)
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", self.bias_init, channels)
        dtype = self.dtype or x.dtype
        if average:
            x = _widened(x) - mean.value
            return (x * (lax.rsqrt(variance.value + self.epsilon) * scale) + bias).astype(dtype)
        axis = None if self.is_initializing() else self.axis_name
        arguments = x, scale, bias, self.epsilon, axis
        custom = ops.uses_custom_gradient(x)
        y, *new = batch_norm(*arguments) if custom else _forward(*arguments)[0]
        if not self.is_initializing():
            for running, value in zip((mean, variance), new, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        return y.astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises ``(N, H, W, C)`` by its own statistics (arXiv:1502.03167, algorithm 1).

    Gives the normalized map in the type of ``x``, and mean and variance ``(C,)``: of all devices
    along ``axis_name``, where there is one. Keeps ``x`` and vectors for the gradient (section 3 of
    the paper), which reads the map once for Σ g and Σ g (x - mean), and once for that by ``x``.
    """
    return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(x, scale, bias, epsilon, axis_name):
    x32 = _widened(x)
    moments = jnp.stack([x32.mean((0, 1, 2)), (x32 * x32).mean((0, 1, 2))])
    mean, square = moments if axis_name is None else lax.pmean(moments, axis_name)
    variance = jnp.maximum(0.0, square - mean * mean)  # which rounding may take below
    inverse_std = lax.rsqrt(variance + epsilon)
    y = (x32 - mean) * (inverse_std * scale) + bias
    return (y.astype(x.dtype), mean, variance), (x, scale, bias, mean, inverse_std)


def _backward(epsilon, axis_name, saved, gradients):
    x, scale, bias, mean, inverse_std = saved
    by_y, by_mean, by_variance = gradients
    centred, by_y = _widened(x) - mean, _widened(by_y)
    by_bias = by_y.sum((0, 1, 2))
    by_scale = (by_y * centred).sum((0, 1, 2)) * inverse_std
    means = jnp.stack([by_bias, by_scale, by_mean, by_variance]) / (x.size // x.shape[-1])
    if axis_name is not None:
        means = lax.pmean(means, axis_name)
    all_bias, all_scale, by_mean, by_variance = means
    slope = 2 * by_variance - scale * inverse_std**2 * all_scale
    by_x = scale * inverse_std * (by_y - all_bias) + slope * centred + by_mean
    return by_x.astype(x.dtype), by_scale.astype(scale.dtype), by_bias.astype(bias.dtype)


batch_norm.defvjp(_forward, _backward)


def _widened(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
