"""Intervals of evaluation, checkpoints and logging, in steps."""

from collections.abc import Iterator
from dataclasses import dataclass

from train.data.sampler import EpochSampler
from train.engine.profiling import check_profile_steps
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import pluralize


@dataclass(frozen=True)
class Intervals:
    """Length of a run and its intervals, all in steps.

    Attributes:
      sampler: the batches of the training images.
      num_steps: length of the run.
      eval_every, save_every, save_steps: intervals of evaluations and, by two rules, of
        checkpoints; 0 for only at the end.
      log_every: steps that the training metrics of a row are averaged over, at least.
    """

    sampler: EpochSampler
    num_steps: int
    eval_every: int
    save_every: int
    save_steps: int
    log_every: int

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        return self.sampler.steps_per_epoch

    def evaluates(self, step: int) -> bool:
        """Return whether to evaluate after ``step`` steps."""
        return self._due(step, self.eval_every)

    def evaluations_after(self, step: int) -> int:
        """Return the number of evaluations after more than ``step`` steps."""
        every, end = self.eval_every, self.num_steps
        if not every:
            return int(step < end)
        return end // every - min(step, end) // every + (end % every > 0 and step < end)

    def saves(self, step: int) -> bool:
        """Return whether to save a checkpoint after ``step`` steps."""
        return self._due(step, self.save_every) or self._due(step, self.save_steps)

    def logs(self, step: int) -> bool:
        """Return whether something is due after ``step`` steps that needs their metrics.

        Always when it saves, so that no state is saved whose loss was not checked.
        """
        return self.completes_window(step) or self.evaluates(step) or self.saves(step)

    def completes_window(self, step: int) -> bool:
        """Return whether training metrics are averaged and logged after ``step`` steps.

        That is so every ``log_every`` steps, counted from the last evaluation, at evaluations, and
        at the end. What remains before an evaluation or the end is merged into its row: windows
        have ``log_every`` steps or more, except in a shorter run. They depend only on the
        configuration, wherever a run was interrupted.
        """
        left = self.num_steps - step
        if left < self.log_every:
            return left == 0
        # Evaluations that follow each other faster than windows complete only some of these.
        period = self.eval_every and self.eval_every * -(-self.log_every // self.eval_every)
        since = step % period if period else step
        if since == 0:
            return step > 0
        return since % self.log_every == 0 and (not period or period - since >= self.log_every)

    def calls(self, start: int, max_steps: int) -> Iterator[range]:
        """Yield the steps from ``start`` in ranges of at most ``max_steps``.

        Whatever is due falls on the end of a range.
        """
        while start < self.num_steps:
            stop = start + 1
            while stop - start < max_steps and not self.logs(stop):
                stop += 1
            yield range(start, stop)
            start = stop

    def epoch(self, step: int) -> float:
        """Return the number of epochs after ``step`` steps.

        With repeated augmentation an image counts once per repetition.
        """
        return step / self.steps_per_epoch

    def place(self, step: int) -> dict[str, float]:
        """Return the place of a row of metrics in the run."""
        return {"step": step, "epoch": round(self.epoch(step), 4)}

    def describe(self) -> str:
        """Return a sentence about the length of the run and the images that epochs use."""
        epochs, sampler = self.epoch(self.num_steps), self.sampler
        text = (
            f"{pluralize(self.num_steps, 'step')} of {pluralize(sampler.batch_size, 'image')},"
            f" {self.steps_per_epoch:,} per epoch, {epochs:.4g} epoch{'' if epochs == 1 else 's'}"
        )
        return "; ".join(filter(None, (text, sampler.describe_epoch())))

    def _due(self, step: int, every: int) -> bool:
        return step == self.num_steps or bool(every and step % every == 0)


def make_intervals(config: ConfigDict, sampler: EpochSampler) -> Intervals:
    """Build the intervals of a configuration.

    Raises:
      UsageError: the batch is larger than the training set, or the run has no steps.
    """
    images, steps_per_epoch = sampler.num_records, sampler.steps_per_epoch
    if not steps_per_epoch:
        raise UsageError(
            f"config.batch_size={config.batch_size} exceeds the"
            f" {pluralize(images, 'training image')}; choose at most {images}"
        )

    def in_steps(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch)) if epochs else 0

    def every(epochs: float) -> int:
        # Automatic: at most about 100 times per run, and no more often than every 20 steps.
        return in_steps(epochs) if epochs >= 0 else max(steps_per_epoch, 20, num_steps // 100)

    num_steps = config.num_steps or in_steps(config.num_epochs)
    if not num_steps:
        raise UsageError("config.num_epochs and config.num_steps are both 0: nothing to train")
    check_profile_steps(config.log.profile_steps, num_steps)
    return Intervals(
        sampler=sampler,
        num_steps=num_steps,
        eval_every=every(config.eval.every_epochs),
        save_every=every(config.checkpoint.every_epochs),
        save_steps=config.checkpoint.every_steps,
        log_every=config.log.every_steps or min(100, max(10, steps_per_epoch // 10)),
    )
