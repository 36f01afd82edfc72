"""Learning-rate schedules from Optax, with their description and warnings.

A schedule is a function ``(config.schedule, span)`` that returns an Optax schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optax

from train.config.registries import SCHEDULES, register_schedule
from train.engine.optim.own_checks import check_schedule
from train.runtime.errors import UsageError
from train.runtime.formatting import format_percent, pluralize
from train.runtime.own_code import build

if TYPE_CHECKING:  # the optimizers need no ml_collections
    from train.runtime.config_dict import ConfigDict

# As in PyTorch, one cycle starts at 1/25 of its peak, and ends at 1/10,000 of that.
CYCLE_START = 1 / 25
CYCLE_END = CYCLE_START / 1e4


@dataclass(frozen=True)
class Span:
    """The steps that a schedule covers.

    Attributes:
      peak: peak learning rate.
      num_steps: length of the run.
      warmup: length of the warm-up in steps.
      steps_per_epoch: length of an epoch.
    """

    peak: float
    num_steps: int
    warmup: int
    steps_per_epoch: int

    @property
    def left(self) -> int:
        """Number of steps after the warm-up, at least 1."""
        return max(1, self.num_steps - self.warmup)

    def after_warmup(self, schedule: optax.Schedule) -> optax.Schedule:
        """Return a linear warm-up followed by ``schedule``, which begins at its step 0."""
        if not self.warmup:
            return schedule
        # Step 0 already has a learning rate above zero, and step warmup − 1 the peak.
        rise = optax.linear_schedule(self.peak / self.warmup, self.peak, max(1, self.warmup - 1))
        return optax.join_schedules([rise, schedule], [self.warmup])


def make_schedule(
    schedule: ConfigDict, steps_per_epoch: int, num_steps: int, batch_size: int
) -> optax.Schedule:
    """Build the learning rate as a function of the step, from ``config.schedule``.

    Steps and epochs are counted from the start of the run, including the warm-up.

    Raises:
      UsageError: keys exclude each other, or an own schedule has no learning rate for every step.
    """
    step_boundaries(schedule, steps_per_epoch, num_steps)  # checks the keys of any schedule
    warmup = warmup_steps(schedule, steps_per_epoch, num_steps)
    span = Span(peak_rate(schedule, batch_size), num_steps, warmup, steps_per_epoch)
    rates = build(SCHEDULES, schedule.name, schedule, span)
    if SCHEDULES.owner(schedule.name) is not None:
        check_schedule(schedule.name, rates, num_steps, warmup)
    return rates


@register_schedule("constant")
def constant(schedule: ConfigDict, span: Span) -> optax.Schedule:
    """Return the peak after the warm-up."""
    return span.after_warmup(optax.constant_schedule(span.peak))


@register_schedule("step")
def step(schedule: ConfigDict, span: Span) -> optax.Schedule:
    """Return the peak, multiplied by ``gamma`` at each milestone, also within the warm-up."""
    flat = constant(schedule, span)
    boundaries = step_boundaries(schedule, span.steps_per_epoch, span.num_steps)
    decay = step_decay(boundaries, schedule.gamma)
    return lambda step: flat(step) * decay(step)


@register_schedule("cosine")
def cosine(schedule: ConfigDict, span: Span) -> optax.Schedule:
    """Return half a cosine (Loshchilov and Hutter 2016, arXiv:1608.03983)."""
    fall = optax.cosine_decay_schedule(span.peak, span.left, schedule.end_lr_fraction)
    return span.after_warmup(fall)


@register_schedule("polynomial")
def polynomial(schedule: ConfigDict, span: Span) -> optax.Schedule:
    """Return a fall by a power of the remaining steps."""
    end = span.peak * schedule.end_lr_fraction
    return span.after_warmup(optax.polynomial_schedule(span.peak, end, schedule.power, span.left))


@register_schedule("one_cycle")
def one_cycle(schedule: ConfigDict, span: Span) -> optax.Schedule:
    """Return Smith and Topin's one cycle, which has a warm-up of its own."""
    return cycle(span.peak, span.num_steps, schedule.pct_start)


def step_decay(boundaries: Sequence[int], gamma: float) -> optax.Schedule:
    """Return 1, multiplied by ``gamma`` at each boundary; repeated boundaries count repeatedly."""
    factors: dict[int, float] = {}
    for boundary in boundaries:
        factors[boundary] = factors.get(boundary, 1.0) * gamma
    return optax.piecewise_constant_schedule(1.0, factors)


def cycle(peak: float, num_steps: int, pct_start: float) -> optax.Schedule:
    """Return Smith and Topin's one cycle (arXiv:1708.07120) in the form of PyTorch's OneCycleLR.

    A half cosine rises over the fraction ``pct_start`` of the run, and another one falls to
    almost zero at the last step; Optax's own cycle would end one step after the run. Only the
    learning rate is cycled, not the momentum, which PyTorch cycles by default.
    """
    last = num_steps - 1
    top = pct_start * num_steps - 1  # not necessarily an integer
    if top <= 0:
        return optax.cosine_decay_schedule(peak, max(1, last), CYCLE_END)
    up = optax.cosine_decay_schedule(peak * CYCLE_START, top, alpha=1 / CYCLE_START)
    down = optax.cosine_decay_schedule(peak, last - top, alpha=CYCLE_END)
    return optax.join_schedules([up, down], [top])


def peak_rate(schedule: ConfigDict, batch_size: int) -> float:
    """Return the peak learning rate.

    With ``base_batch_size`` it is linear in the batch size (Goyal et al. 2017, arXiv:1706.02677,
    section 2.1).
    """
    if schedule.base_batch_size:
        return schedule.learning_rate * batch_size / schedule.base_batch_size
    return schedule.learning_rate


def configured_warmup_steps(schedule: ConfigDict, steps_per_epoch: int) -> int:
    """Return the configured length of the warm-up, regardless of the length of the run."""
    if schedule.warmup_epochs and schedule.warmup_steps:
        raise UsageError(
            f"config.schedule.warmup_epochs={schedule.warmup_epochs:g} and"
            f" config.schedule.warmup_steps={schedule.warmup_steps} are both set; set one to 0"
        )
    steps = schedule.warmup_steps or round(schedule.warmup_epochs * steps_per_epoch)
    if steps and schedule.name == "one_cycle":
        raise UsageError(
            "config.schedule.name='one_cycle' includes its own warm-up, schedule.pct_start; set"
            " config.schedule.warmup_epochs and warmup_steps to 0"
        )
    return steps


def warmup_steps(schedule: ConfigDict, steps_per_epoch: int, num_steps: int) -> int:
    """Return the length of the warm-up, shortened so that a short run trains at the peak too."""
    longest = round(schedule.max_warmup_fraction * num_steps)
    return min(configured_warmup_steps(schedule, steps_per_epoch), longest)


def step_boundaries(schedule: ConfigDict, steps_per_epoch: int, num_steps: int) -> list[int]:
    """Return the steps at which 'step' lowers the learning rate."""
    if schedule.milestone_epochs and schedule.milestone_steps:
        raise UsageError(
            f"config.schedule.milestone_epochs={tuple(schedule.milestone_epochs)} and"
            f" config.schedule.milestone_steps={tuple(schedule.milestone_steps)} are both set; set"
            " one to ()"
        )
    if schedule.milestone_steps:
        return list(schedule.milestone_steps)
    if schedule.milestone_epochs:
        return [round(epoch * steps_per_epoch) for epoch in schedule.milestone_epochs]
    steps = [round(fraction * num_steps) for fraction in schedule.milestones]
    return [step for step in steps if 0 < step < num_steps]


def same_rates(
    schedule: ConfigDict, steps_per_epoch: int, lengths: Sequence[int], num_steps: int
) -> bool:
    """Return whether runs of all ``lengths`` have the same rates in their first ``num_steps``."""
    if schedule.name not in ("constant", "step"):
        return False
    rates = set()
    for length in lengths:
        boundaries: list[int] = []
        if schedule.name == "step":
            boundaries = step_boundaries(schedule, steps_per_epoch, length)
        early = tuple(boundary for boundary in boundaries if boundary < num_steps)
        rates.add((warmup_steps(schedule, steps_per_epoch, length), early))
    return len(rates) == 1


def describe(schedule: ConfigDict, steps_per_epoch: int, num_steps: int, batch_size: int) -> str:
    """Return a sentence about the peak learning rate, the warm-up and the schedule."""
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


def warnings(schedule: ConfigDict, steps_per_epoch: int, num_steps: int) -> list[str]:
    """Return a message for everything in the schedule that does not fit the run's length."""
    messages = []
    configured = configured_warmup_steps(schedule, steps_per_epoch)
    warmup = warmup_steps(schedule, steps_per_epoch, num_steps)
    if warmup < configured:
        messages.append(
            f"note: warm-up shortened from {configured:,} to {pluralize(warmup, 'step')}, at most"
            f" {format_percent(schedule.max_warmup_fraction, 0)} of a run of {num_steps:,}"
            " (schedule.max_warmup_fraction)"
        )
    if schedule.name == "step":
        boundaries = step_boundaries(schedule, steps_per_epoch, num_steps)
        if late := [step for step in boundaries if step >= num_steps]:
            messages.append(
                f"the learning rate is to decay at step {late[0]:,}, but the run ends after"
                f" {num_steps:,}"
            )
        if early := [step for step in boundaries if step < warmup]:
            messages.append(
                f"the learning rate is to decay at step {early[0]:,}, but the warm-up ends after"
                f" {warmup:,}: it never reaches its peak"
            )
    return messages
