"""Learning-rate schedules, from Optax, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import optax

from train.runtime.errors import UsageError
from train.runtime.formatting import pluralize

if TYPE_CHECKING:
    import ml_collections

# One cycle starts at a 25th of its height and ends at a 10,000th of that start, as PyTorch's.
CYCLE_START = 1 / 25
CYCLE_END = CYCLE_START / 1e4


def make_schedule(
    schedule: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int, batch_size: int
) -> optax.Schedule:
    """Learning rate as a function of the step, from ``config.schedule``.

    A linear warm-up, then what ``schedule.name`` says. Steps and epochs are counted from the
    start of the run, warm-up included. Raises UsageError for keys that exclude each other.
    """
    peak = peak_rate(schedule, batch_size)
    warmup = warmup_steps(schedule, steps_per_epoch, num_steps)
    boundaries = step_boundaries(schedule, steps_per_epoch, num_steps)
    left = max(1, num_steps - warmup)
    if schedule.name == "one_cycle":
        return one_cycle(peak, num_steps, schedule.pct_start)
    if schedule.name == "cosine":  # Loshchilov and Hutter 2016, arXiv:1608.03983
        after = optax.cosine_decay_schedule(peak, left, schedule.end_lr_fraction)
    elif schedule.name == "polynomial":
        after = optax.polynomial_schedule(
            peak, peak * schedule.end_lr_fraction, schedule.power, left
        )
    else:
        after = optax.constant_schedule(peak)
    if warmup:
        # Step 0 already learns: the rate rises over steps 1 … warmup.
        rise = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
        after = optax.join_schedules([rise, after], [warmup])
    if schedule.name == "step":  # a fall within the warm-up counts, too
        share = falls(boundaries, schedule.gamma)
        return lambda step: after(step) * share(step)
    return after


def falls(boundaries: Sequence[int], factor: float) -> optax.Schedule:
    """1, times ``factor`` from each boundary on; twice where two are the same step."""
    factors: dict[int, float] = {}
    for boundary in boundaries:
        factors[boundary] = factors.get(boundary, 1.0) * factor
    return optax.piecewise_constant_schedule(1.0, factors)


def one_cycle(peak: float, num_steps: int, rise: float) -> optax.Schedule:
    """Smith and Topin's one cycle (arXiv:1708.07120), in the form of PyTorch's OneCycleLR.

    The rate alone: momentum, which PyTorch cycles by default, stays as it is.

    A half cosine up over the share ``rise`` of the run and one down to almost nothing, which
    the last step has. Optax's own cycle would reach its end one step after the run.
    """
    last = num_steps - 1
    top = rise * num_steps - 1  # need not be whole
    if top <= 0:
        return optax.cosine_decay_schedule(peak, max(1, last), CYCLE_END)
    up = optax.cosine_decay_schedule(peak * CYCLE_START, top, alpha=1 / CYCLE_START)
    down = optax.cosine_decay_schedule(peak, last - top, alpha=CYCLE_END)
    return optax.join_schedules([up, down], [top])


def peak_rate(schedule: ml_collections.ConfigDict, batch_size: int) -> float:
    """The highest learning rate: on request linear in the batch (Goyal et al. 2017,
    arXiv:1706.02677, section 2.1).
    """
    if schedule.base_batch_size:
        return schedule.learning_rate * batch_size / schedule.base_batch_size
    return schedule.learning_rate


def asked_warmup(schedule: ml_collections.ConfigDict, steps_per_epoch: int) -> int:
    """Steps of warm-up that the configuration asks for, however short the run."""
    if schedule.warmup_epochs and schedule.warmup_steps:
        raise UsageError(
            f"config.schedule.warmup_epochs={schedule.warmup_epochs:g} and"
            f" config.schedule.warmup_steps={schedule.warmup_steps} are both set; set one to 0"
        )
    asked = schedule.warmup_steps or round(schedule.warmup_epochs * steps_per_epoch)
    if asked and schedule.name == "one_cycle":
        raise UsageError(
            "config.schedule.name='one_cycle' rises by itself, over pct_start of the run;"
            " set config.schedule.warmup_epochs and warmup_steps to 0"
        )
    return asked


def warmup_steps(schedule: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int) -> int:
    """Steps of warm-up: a short run must reach the height of the rate, and learn there."""
    return min(
        asked_warmup(schedule, steps_per_epoch), round(schedule.max_warmup_fraction * num_steps)
    )


def step_boundaries(
    schedule: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int
) -> list[int]:
    """The steps from which on 'step' lowers the rate."""
    if schedule.milestone_epochs and schedule.milestone_steps:
        raise UsageError(
            f"config.schedule.milestone_epochs={tuple(schedule.milestone_epochs)} and"
            f" config.schedule.milestone_steps={tuple(schedule.milestone_steps)} are both set; set one to ()"
        )
    if schedule.milestone_steps:
        return list(schedule.milestone_steps)
    if schedule.milestone_epochs:
        return [round(epoch * steps_per_epoch) for epoch in schedule.milestone_epochs]
    scaled = [round(share * num_steps) for share in schedule.milestones]
    return [step for step in scaled if 0 < step < num_steps]


# What is told ------------------------------------------------------------------------------


def describe(
    schedule: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int, batch_size: int
) -> str:
    """A sentence on the height of the rate and how it gets there and down."""
    text = f"{schedule.learning_rate:.4g}"
    if schedule.base_batch_size:
        peak = peak_rate(schedule, batch_size)
        text += f" for {schedule.base_batch_size:,} images, so {peak:.4g} for {batch_size:,}"
    if warmup := warmup_steps(schedule, steps_per_epoch, num_steps):
        text += f" after a warm-up of {pluralize(warmup, 'step')}"
    if schedule.name == "step":
        boundaries = step_boundaries(schedule, steps_per_epoch, num_steps)
        at = ", ".join(f"{step:,}" for step in boundaries)
        where = f" at step{'s' * (len(boundaries) > 1)} {at}" if boundaries else " never"
        return f"{text}, times {schedule.gamma:g}{where}"
    return f"{text}, {schedule.name.replace('_', ' ')}"


def warnings(
    schedule: ml_collections.ConfigDict, steps_per_epoch: int, num_steps: int
) -> list[str]:
    """What of the schedule does not fit the length of the run."""
    found = []
    asked = asked_warmup(schedule, steps_per_epoch)
    warmup = warmup_steps(schedule, steps_per_epoch, num_steps)
    if warmup < asked:
        takes = f"it takes {warmup:,}" if warmup else "there is none"
        found.append(
            f"a warm-up of {pluralize(asked, 'step')} is too long for a run of {num_steps:,}:"
            f" {takes}, since it may be {schedule.max_warmup_fraction:.0%} of the run at most"
            " (schedule.max_warmup_fraction)"
        )
    if schedule.name == "step":
        boundaries = step_boundaries(schedule, steps_per_epoch, num_steps)
        if late := [step for step in boundaries if step >= num_steps]:
            found.append(
                f"the learning rate should fall at step {late[0]:,}, but the run ends after"
                f" {num_steps:,}"
            )
        if early := [step for step in boundaries if step < warmup]:
            found.append(
                f"the learning rate should fall at step {early[0]:,}, but the warm-up ends after"
                f" {warmup:,}: it never reaches its height"
            )
    return found
