"""When a run evaluates, saves and writes metrics, in steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ml_collections

from train.runtime.errors import UsageError


@dataclass(frozen=True)
class Intervals:
    """Lengths and intervals in steps; an interval of 0 means at the end alone."""

    num_images: int
    batch_size: int
    steps_per_epoch: int
    num_steps: int
    eval_every: int
    save_every: int
    log_every: int
    repeats: int = 1
    save_steps: int = 0  # another interval, beside save_every

    def evaluates(self, step: int) -> bool:
        """Whether to evaluate once ``step`` steps are done; likewise below."""
        return _due(step, self.eval_every, self.num_steps)

    def saves(self, step: int) -> bool:
        return any(_due(step, n, self.num_steps) for n in (self.save_every, self.save_steps))

    def logs(self, step: int) -> bool:
        # Also where it saves: a run that resumes there averages over the same steps.
        due = _due(step, self.log_every, self.num_steps)
        return due or self.evaluates(step) or self.saves(step)

    def calls(self, start: int, most: int) -> Iterator[range]:
        """The steps from ``start`` on in rows of at most ``most`` with nothing due within."""
        while start < self.num_steps:
            stop = start + 1
            while stop - start < most and not self.logs(stop):
                stop += 1
            yield range(start, stop)
            start = stop

    def epoch(self, step: int) -> float:
        """Passes over the training images that ``step`` steps make, each image counted as
        often as it is repeated."""
        return step / self.steps_per_epoch

    def describe(self) -> str:
        """A sentence that says how long the run is and what its epochs leave out."""
        epochs = self.epoch(self.num_steps)
        text = (
            f"{self.num_steps:,} steps of {self.batch_size} images,"
            f" {self.steps_per_epoch:,} an epoch, {epochs:.4g} epoch{'' if epochs == 1 else 's'}"
        )
        left_out = self.num_images - self.steps_per_epoch * self.batch_size // self.repeats
        if left_out:
            share = left_out / self.num_images
            text += f"; an epoch leaves out {left_out:,} images ({share:.1%}), others each time"
        return text


def make_intervals(config: ml_collections.ConfigDict, num_images: int) -> Intervals:
    """Raises UsageError where the batch does not fit the data or the run has no step."""
    if config.batch_size > num_images:
        raise UsageError(
            f"config.batch_size={config.batch_size} is more than the {num_images} training images;"
            f" choose {num_images} at most"
        )
    steps_per_epoch = num_images // config.batch_size

    def in_steps(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch)) if epochs else 0

    def every(epochs: float) -> int:
        # As suits the run: not more than a hundred times, nor after a handful of steps.
        return in_steps(epochs) if epochs >= 0 else max(steps_per_epoch, 20, num_steps // 100)

    num_steps = config.num_steps or in_steps(config.num_epochs)
    if not num_steps:
        raise UsageError("config.num_epochs and config.num_steps are both 0: nothing to train")
    return Intervals(
        num_images=num_images,
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        eval_every=every(config.eval.every_epochs),
        save_every=every(config.checkpoint.every_epochs),
        log_every=config.log.every_steps or min(100, max(10, steps_per_epoch // 10)),
        repeats=config.augment.repeated_aug,
        save_steps=config.checkpoint.every_steps,
    )


def _due(step: int, every: int, last: int) -> bool:
    return step == last or bool(every and step % every == 0)
