"""Optimisers, put together from Optax's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from train.runtime.errors import UsageError

if TYPE_CHECKING:
    import ml_collections

DECOUPLED = ("adamw", "lamb")  # optimizers whose weight decay is not part of the gradient


def make_optimizer(
    optimizer: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimiser of ``config.optimizer``, for any part of a network's ``params``.

    Each is a chain of what happens to the gradient before it is added to the parameters:

    * ``sgd``: PyTorch's; momentum is neither damped nor corrected.
    * ``adam``: Kingma and Ba 2014, arXiv:1412.6980; with ``nesterov`` Dozat's NAdam.
    * ``adamw``: the same with decoupled decay, Loshchilov and Hutter 2017, arXiv:1711.05101.
      As in PyTorch and Optax, this decay is multiplied by the learning rate.
    * ``lars``: You et al. 2017, arXiv:1708.03888, algorithm 1: the learning rate goes into the
      momentum. Optax's divides by the length of gradient and decay together, where the paper adds
      their lengths; late in a run, where the two nearly cancel, its steps grow long.
    * ``lamb``: You et al. 2019, arXiv:1904.00962.

    LARS and LAMB adapt the rate of kernels alone; norms and biases go at the global one, as in
    their authors' code. Raises UsageError for keys that exclude each other.
    """
    _check(optimizer)
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


def weight_decay(optimizer: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adds ``weight_decay`` times the parameters, of kernels alone unless ``decay_norm_and_bias``."""
    if not optimizer.weight_decay:
        return optax.identity()
    return optax.add_decayed_weights(
        optimizer.weight_decay, mask=None if optimizer.decay_norm_and_bias else kernels
    )


def lars_decay(optimizer: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adds the decay d·w to each gradient g, and multiplies a kernel's sum by LARS's local rate.

    That is ``trust_coefficient`` · |w| / (|g| + d |w|), and 1 where g or w is zero.
    """
    trust, decay = optimizer.trust_coefficient, optimizer.weight_decay

    def update(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
        is_kernel = parameter.ndim > 1
        if not is_kernel:
            return gradient + decay * parameter if optimizer.decay_norm_and_bias else gradient
        length, own = jnp.linalg.norm(parameter.ravel()), jnp.linalg.norm(gradient.ravel())
        local = trust * length / (own + decay * length)
        decayed = gradient + decay * parameter
        return decayed * jnp.where((length > 0) & (own > 0), local, 1.0)

    return optax.stateless(lambda gradients, params: jax.tree.map(update, gradients, params))


def scale_backbone(factor: float) -> optax.GradientTransformation:
    """Multiplies the update of everything but the head; holds no memory."""
    if factor == 1:
        return optax.identity()
    return optax.masked(optax.scale(factor), backbone)


def kernels(params: Any) -> Any:
    """True for kernels, False for all biases and the norms' scales."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def backbone(params: Any) -> Any:
    """True for all but what is in the module ``head``."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key != "head", params)


def _check(optimizer: ml_collections.ConfigDict) -> None:
    if optimizer.name in ("sgd", "lars") and optimizer.nesterov and not optimizer.momentum:
        raise UsageError(
            "config.optimizer.nesterov=True needs momentum, but config.optimizer.momentum is 0"
        )
