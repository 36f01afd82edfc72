"""Batch norm with its gradient in two passes over the map."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from flax_resnet import ops


class BatchNorm(nn.BatchNorm):
    """``nn.BatchNorm``, by :func:`normalise` where :func:`flax_resnet.ops.own_gradient` says so."""

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        trains = not (use_running_average or self.use_running_average or self.is_initializing())
        if not (trains and ops.own_gradient(x)):
            return super().__call__(x, use_running_average)
        scale, bias = (self.get_variable("params", name) for name in ("scale", "bias"))
        y, mean, variance = normalise(x, scale, bias, self.epsilon, self.axis_name)
        for name, new in (("mean", mean), ("var", variance)):
            old = self.get_variable("batch_stats", name)
            self.put_variable("batch_stats", name, self.momentum * old + (1 - self.momentum) * new)
        return y if self.dtype is None else y.astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises ``(N, H, W, C)`` by its own statistics (arXiv:1502.03167, algorithm 1).

    Gives the normalised map, and mean and variance ``(C,)``: of all devices along ``axis_name``,
    where there is one. Computed in float32 at least; ``x`` and three vectors are kept for the
    gradient. That of JAX reads the map again for the mean's and the variance's parts; the paper's
    (section 3) needs two sums over the map, which one pass gives, and a second one for the images.
    """
    return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(x, scale, bias, epsilon, axis_name):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    moments = jnp.stack([wide.mean((0, 1, 2)), (wide * wide).mean((0, 1, 2))])
    mean, square = moments if axis_name is None else lax.pmean(moments, axis_name)
    variance = jnp.maximum(0.0, square - mean * mean)
    inverse = lax.rsqrt(variance + epsilon)
    y = (wide - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, variance), (x, scale, mean, inverse)


def _backward(epsilon, axis_name, saved, gradients):
    x, scale, mean, inverse = saved
    by_y, by_mean, by_variance = gradients
    wide, by_y = (a.astype(mean.dtype) for a in (x, by_y))
    by_bias = by_y.sum((0, 1, 2))
    by_scale = ((by_y * wide).sum((0, 1, 2)) - mean * by_bias) * inverse
    sums = jnp.stack([by_bias, by_scale, by_mean, by_variance])
    count = x.size // x.shape[-1]
    if axis_name is not None:
        sums, count = lax.psum((sums, count), axis_name)
    all_bias, all_scale, by_mean, by_variance = sums / count
    # The statistics' gradients, as a line in x: the pass over the map has one sum and two products.
    slope = 2 * by_variance - scale * inverse * inverse * all_scale
    shift = by_mean - scale * inverse * all_bias - slope * mean
    by_x = scale * inverse * by_y + slope * wide + shift
    return by_x.astype(x.dtype), by_scale, by_bias


normalise.defvjp(_forward, _backward)
