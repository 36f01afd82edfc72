"""Optimizers, composed of Optax transformations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from train.runtime.errors import UsageError

if TYPE_CHECKING:  # the optimizers need no ml_collections
    from train.runtime.config_dict import ConfigDict

DECOUPLED = ("adamw", "lamb")  # weight decay is not part of the gradient


def make_optimizer(optimizer: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Build the optimizer of ``config.optimizer``, for any part of a network's ``params``.

    * ``sgd``: as in PyTorch; momentum without dampening.
    * ``adam``: Kingma and Ba 2014, arXiv:1412.6980; with ``nesterov`` Dozat's NAdam.
    * ``adamw``: Adam with decoupled weight decay, Loshchilov and Hutter 2017, arXiv:1711.05101.
      As in PyTorch and Optax, the decay is multiplied by the learning rate.
    * ``lars``: You et al. 2017, arXiv:1708.03888, algorithm 1: the learning rate is part of the
      momentum. Optax's LARS divides by the norm of the sum of gradient and decay, while the paper
      adds their norms; late in a run the two nearly cancel, and Optax's steps grow long.
    * ``lamb``: You et al. 2019, arXiv:1904.00962.

    LARS and LAMB adapt only the learning rate of kernels; norms and biases use the global one, as
    in their authors' code.

    Raises:
      UsageError: keys exclude each other.
    """
    if optimizer.name in ("sgd", "lars") and optimizer.nesterov and not optimizer.momentum:
        raise UsageError(
            "config.optimizer.nesterov=True needs momentum, but config.optimizer.momentum is 0"
        )
    decay = weight_decay(optimizer)
    none = optax.identity()
    coupled, decoupled = (none, decay) if optimizer.name in DECOUPLED else (decay, none)
    rate = optax.scale_by_learning_rate(schedule)
    adam = optax.scale_by_adam(
        optimizer.b1, optimizer.b2, optimizer.eps, nesterov=optimizer.nesterov
    )
    adapted = optax.masked(optax.scale_by_trust_ratio(), kernels)
    momentum = optax.trace(optimizer.momentum, optimizer.nesterov) if optimizer.momentum else none
    chains = {
        "sgd": [coupled, momentum, decoupled, rate],
        "adam": [coupled, adam, decoupled, rate],
        "adamw": [coupled, adam, decoupled, rate],
        "lars": [lars_decay(optimizer), rate, momentum],
        "lamb": [coupled, adam, decoupled, adapted, rate],
    }
    clip = optax.clip_by_global_norm(optimizer.grad_clip_norm) if optimizer.grad_clip_norm else none
    return optax.chain(clip, *chains[optimizer.name], scale_backbone(optimizer.backbone_lr_scale))


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
    """Scale the updates of everything except the head; adds no state."""
    if factor == 1:
        return optax.identity()
    return optax.masked(optax.scale(factor), backbone)


def kernels(params: Any) -> Any:
    """Return a mask that is True for kernels, and False for biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def backbone(params: Any) -> Any:
    """Return a mask that is True for everything outside the module ``head``."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key != "head", params)
