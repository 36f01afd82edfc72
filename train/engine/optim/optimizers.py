"""Optimizers, composed of Optax transformations.

An optimizer is a function ``(config.optimizer, schedule)`` that returns one Optax transformation,
or several in order, with the weight decay and the learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from flax_resnet.dense.on_backbone import HEADS
from train.config.registries import OPTIMIZERS, register_optimizer
from train.runtime.errors import UsageError
from train.runtime.own_code import build

if TYPE_CHECKING:  # the optimizers need no ml_collections
    from train.runtime.config_dict import ConfigDict

Transformations = Sequence[optax.GradientTransformation]


def make_optimizer(optimizer: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Build the optimizer of ``config.optimizer``, for any part of a network's ``params``.

    Gradients are clipped before it, and updates of the backbone scaled after it.

    Raises:
      UsageError: keys exclude each other.
    """
    none = optax.identity()
    clip = optax.clip_by_global_norm(optimizer.grad_clip_norm) if optimizer.grad_clip_norm else none
    parts = build(OPTIMIZERS, optimizer.name, optimizer, schedule)
    if isinstance(parts, optax.GradientTransformation) or not isinstance(parts, Sequence):
        parts = [parts]
    if wrong := [part for part in parts if not isinstance(part, optax.GradientTransformation)]:
        raise UsageError(
            f"the optimizer {optimizer.name!r} must return Optax transformations, not"
            f" {wrong[0]!r:.200}"
        )
    return optax.chain(clip, *parts, scale_backbone(optimizer.backbone_lr_scale))


@register_optimizer("sgd")
def sgd(optimizer: ConfigDict, schedule: optax.Schedule) -> Transformations:
    """Return SGD as in PyTorch: momentum without dampening, weight decay in the gradient."""
    check_nesterov(optimizer)
    rate = optax.scale_by_learning_rate(schedule)
    return [weight_decay(optimizer), momentum(optimizer), optax.identity(), rate]


@register_optimizer("adam")
def adam(optimizer: ConfigDict, schedule: optax.Schedule) -> Transformations:
    """Return Adam (Kingma and Ba 2014, arXiv:1412.6980); with ``nesterov`` Dozat's NAdam."""
    rate = optax.scale_by_learning_rate(schedule)
    return [weight_decay(optimizer), scale_by_adam(optimizer), optax.identity(), rate]


@register_optimizer("adamw")
def adamw(optimizer: ConfigDict, schedule: optax.Schedule) -> Transformations:
    """Return Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101).

    As in PyTorch and Optax, the decay is multiplied by the learning rate.
    """
    rate = optax.scale_by_learning_rate(schedule)
    return [optax.identity(), scale_by_adam(optimizer), weight_decay(optimizer), rate]


@register_optimizer("lars")
def lars(optimizer: ConfigDict, schedule: optax.Schedule) -> Transformations:
    """Return LARS (You et al. 2017, arXiv:1708.03888, algorithm 1).

    The learning rate is part of the momentum. Optax's LARS divides by the norm of the sum of
    gradient and decay, while the paper adds their norms; late in a run the two nearly cancel, and
    Optax's steps grow long. As in the authors' code, only the learning rate of kernels is adapted;
    norms and biases use the global one.
    """
    check_nesterov(optimizer)
    return [lars_decay(optimizer), optax.scale_by_learning_rate(schedule), momentum(optimizer)]


@register_optimizer("lamb")
def lamb(optimizer: ConfigDict, schedule: optax.Schedule) -> Transformations:
    """Return LAMB (You et al. 2019, arXiv:1904.00962), which adapts kernels only, as LARS does."""
    adapted = optax.masked(optax.scale_by_trust_ratio(), kernels)
    rate = optax.scale_by_learning_rate(schedule)
    decay = weight_decay(optimizer)
    return [optax.identity(), scale_by_adam(optimizer), decay, adapted, rate]


def scale_by_adam(optimizer: ConfigDict) -> optax.GradientTransformation:
    """Scale gradients by their first two moments."""
    return optax.scale_by_adam(
        optimizer.b1, optimizer.b2, optimizer.eps, nesterov=optimizer.nesterov
    )


def momentum(optimizer: ConfigDict) -> optax.GradientTransformation:
    """Accumulate updates with ``momentum``, which may be 0."""
    if not optimizer.momentum:
        return optax.identity()
    return optax.trace(optimizer.momentum, optimizer.nesterov)


def check_nesterov(optimizer: ConfigDict) -> None:
    """Raise UsageError for Nesterov momentum without momentum."""
    if optimizer.nesterov and not optimizer.momentum:
        raise UsageError(
            "config.optimizer.nesterov=True needs momentum, but config.optimizer.momentum is 0"
        )


def weight_decay(optimizer: ConfigDict) -> optax.GradientTransformation:
    """Add the weight decay of kernels, with ``decay_norm_and_bias`` of all parameters."""
    if not optimizer.weight_decay:
        return optax.identity()
    return optax.add_decayed_weights(
        optimizer.weight_decay, mask=None if optimizer.decay_norm_and_bias else kernels
    )


def lars_decay(optimizer: ConfigDict) -> optax.GradientTransformation:
    """Add the weight decay d·w to each gradient g, and scale kernels by LARS's local rate.

    The local rate is ``trust_coefficient`` · |w| / (|g| + d |w|), and 1 if g or w is zero.
    """
    trust, decay = optimizer.trust_coefficient, optimizer.weight_decay

    def update(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
        is_kernel = parameter.ndim > 1
        if not is_kernel:
            return gradient + decay * parameter if optimizer.decay_norm_and_bias else gradient
        w_norm, g_norm = jnp.linalg.norm(parameter.ravel()), jnp.linalg.norm(gradient.ravel())
        local = trust * w_norm / (g_norm + decay * w_norm)
        decayed = gradient + decay * parameter
        return decayed * jnp.where((w_norm > 0) & (g_norm > 0), local, 1.0)

    return optax.stateless(lambda gradients, params: jax.tree.map(update, gradients, params))


def scale_backbone(factor: float) -> optax.GradientTransformation:
    """Scale the updates of everything except the heads; adds no state."""
    if factor == 1:
        return optax.identity()
    return optax.masked(optax.scale(factor), backbone)


def kernels(params: Any) -> Any:
    """Return a mask that is True for kernels, and False for biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def backbone(params: Any) -> Any:
    """Return a mask that is True for everything outside the heads."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key not in HEADS, params)
