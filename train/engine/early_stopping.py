"""Ends of a run before its last step: without progress, or after a time."""

import math
import time
from typing import Any

from train.config.registries import larger_is_better
from train.runtime import distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.formatting import pluralize
from train.workdir.metrics_log import read_rows

MINUTES = "minutes"  # in rows of metrics.jsonl: time of the run in all sessions


class EarlyStopping:
    """Whether a run has ended, by ``config.stop``.

    The decision about progress depends only on the evaluations that are logged, so a run that is
    killed and resumed ends at the same step. The same in all processes, which must create it
    together.

    Attributes:
      reason: why the run has ended; empty if it has not.
      advice: the key that continues it.

    Args:
      config: the run's configuration.
      workdir: the run's folder, with the evaluations before ``start``.
      start: the step from which the run continues.
    """

    def __init__(self, config: ConfigDict, workdir: str, start: int):
        self._patience, self._min_delta = config.stop.patience, config.stop.min_delta
        self._metric = config.eval.metric
        self._sign = 1 if larger_is_better(self._metric) else -1
        self._minutes = config.stop.minutes
        self._best, self._best_step, self._without = -math.inf, 0, 0
        self._start_time, self._minutes_before = time.monotonic(), 0.0
        self.reason = self.advice = ""
        if not start or not (self._patience or self._minutes):
            return
        with distributed.raise_if_any_failed():
            rows = read_rows(workdir) if distributed.is_primary() else []
        name = f"eval/{self._metric}"
        logged = [(row["step"], row[name]) for row in rows if row["step"] <= start and name in row]
        spent = [row[MINUTES] or 0 for row in rows if row["step"] <= start and MINUTES in row]
        logged, spent = distributed.allgather((logged, max(spent, default=0)))[0]
        self._minutes_before = spent
        for step, value in logged:
            self._add(step, value)
        self._check_minutes(spent)

    def evaluated(self, step: int, evaluation: dict[str, Any]) -> None:
        """Count the evaluation after ``step`` steps."""
        self._add(step, evaluation.get(self._metric))

    def logging(self, row: dict[str, Any]) -> None:
        """Add the time to a row that every process logs, and compare it with the limit."""
        if not self._minutes:
            return
        minutes = self._minutes_before + (time.monotonic() - self._start_time) / 60
        row[MINUTES] = minutes = round(distributed.allgather(minutes)[0], 4)
        self._check_minutes(minutes)

    def describe(self, step: int) -> str:
        """Return why the run ended after ``step`` steps, and how to continue it."""
        return (
            f"finished early after step {step:,}: {self.reason}; to continue, run the same command"
            f" with {self.advice}"
        )

    def _add(self, step: int, value: float | None) -> None:
        """Count an evaluation; None or NaN is no progress."""
        value = math.nan if value is None else self._sign * value
        if value > self._best + self._min_delta:
            self._best, self._best_step, self._without = value, step, 0
        else:
            self._without += 1
        self.reason = self.advice = ""
        if self._patience and self._without >= self._patience:
            best = f" (best {self._sign * self._best:.4g} after step {self._best_step:,})"
            self.reason = (
                f"{pluralize(self._without, 'evaluation')} did not improve eval/{self._metric} by"
                f" more than {self._min_delta:g}{best if self._best_step else ''}"
            )
            self.advice = "a larger config.stop.patience, or 0"

    def _check_minutes(self, minutes: float) -> None:
        if self._minutes and minutes >= self._minutes:
            self.reason = f"the run took {minutes:.4g} min, with stop.minutes={self._minutes:g}"
            self.advice = "a larger config.stop.minutes, or 0"
