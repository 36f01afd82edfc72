"""Learning-rate schedules and optimisers, from Optax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import optax

if TYPE_CHECKING:
    import ml_collections


def make_schedule(
    schedule: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int
) -> optax.Schedule:
    """Learning rate as a function of the step, from ``config.schedule``.

    A linear warm-up from zero, then constant, a half cosine down to zero at ``num_steps``
    (Loshchilov and Hutter 2016, arXiv:1608.03983), or steps down by a factor. Epochs are
    counted from the start of the run, warm-up included.
    """
    peak = schedule.learning_rate
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if schedule.name == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, num_steps - warmup))
    elif schedule.name == "step":
        boundaries = (round(epoch * steps_per_epoch) - warmup for epoch in schedule.step_epochs)
        after = optax.piecewise_constant_schedule(
            peak, {boundary: schedule.step_factor for boundary in boundaries}
        )
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    # Step 0 already learns: the rate rises over steps 1 … warmup.
    rise = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
    return optax.join_schedules([rise, after], [warmup])


def make_optimizer(
    optimizer: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimiser of ``config.optimizer``; weight decay is an L2 penalty on kernels only.

    SGD is PyTorch's: the penalty joins the gradient before the momentum, which is neither
    damped nor corrected.
    """
    decay = optax.add_decayed_weights(optimizer.weight_decay, mask=decayed)
    if optimizer.name == "adam":
        adam = optax.adam(schedule, b1=optimizer.momentum, nesterov=optimizer.nesterov)
        return optax.chain(decay, adam)
    return optax.chain(
        decay,
        optax.sgd(schedule, optimizer.momentum or None, nesterov=optimizer.nesterov),
    )


def decayed(params: Any) -> Any:
    """True for kernels, False for biases and the norms' scales, which are not decayed."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
