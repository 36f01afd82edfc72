"""Mean metrics, throughput and input wait of the steps between two rows of metrics."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import jax

from train.data.prefetch import Prefetcher
from train.engine.devices import DispatchThrottle
from train.engine.mfu import mfu_per_image

if TYPE_CHECKING:  # it imports libraries that a benchmark on a bare machine lacks
    from train.engine.experiment import Experiment


@dataclass
class Window:
    """Sums over steps; those of skipped steps are 0.

    Attributes:
      steps: number of steps.
      learning_rate: the last one.
      sums: sums of ``loss``, the task's metrics and ``nonfinite``, the number of steps that were
        not finite.
    """

    steps: float = 0.0
    learning_rate: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> Self:
        """Return the window of :meth:`to_dict`."""
        if not values:
            return cls()
        values = dict(values)
        return cls(values.pop("steps"), values.pop("learning_rate"), values)

    def to_dict(self) -> dict[str, float]:
        """Return all numbers by name; empty without any step."""
        if not self.steps:
            return {}
        return {"steps": self.steps, "learning_rate": self.learning_rate} | self.sums

    def add(self, steps: int, means: dict[str, Any]) -> None:
        """Add the mean metrics of some steps."""
        self.steps += steps
        for name, mean in means.items():
            if name != "learning_rate":
                self.sums[name] = self.sums.get(name, 0.0) + steps * float(mean)
        self.learning_rate = float(means["learning_rate"])

    def means(self, skips_nonfinite: bool) -> dict[str, float]:
        """Return the means as in a row of metrics.

        Args:
          skips_nonfinite: whether steps that are not finite were skipped; means are over the
            others then, and NaN if there are none, since a loss of 0 would look perfect.
        """
        sums = {"loss": 0.0} | self.sums
        nonfinite = sums.pop("nonfinite", 0.0)
        counted = round(self.steps - (nonfinite if skips_nonfinite else 0))
        row = {
            f"train/{name}": total / counted if counted else float("nan")
            for name, total in sums.items()
        }
        row["learning_rate"] = self.learning_rate
        return row | ({"nonfinite": round(nonfinite)} if nonfinite else {})


class Meter:
    """Collector of the metrics of steps, which stay on the devices until :meth:`collect`.

    Attributes:
      first_nonfinite: the first of the steps last collected that was not finite, counted from 1.

    Args:
      batch_size: images per step.
      fetch: copies a tree of metrics to the host.
      skips_nonfinite: whether steps that are not finite are skipped, with a loss of 0.
      mfu_per_image: MFU at one image per second; None if unknown.
      completes_window: whether a step ends a window of steps, whose means are a row.
    """

    def __init__(
        self,
        batch_size: int,
        fetch: Callable,
        skips_nonfinite: bool = False,
        mfu_per_image: float | None = None,
        completes_window: Callable[[int], bool] = lambda step: True,
    ):
        self.batch_size, self.fetch = batch_size, fetch
        self.skips_nonfinite, self.mfu_per_image = skips_nonfinite, mfu_per_image
        self.completes_window = completes_window
        self.first_nonfinite: int | None = None
        self._metrics: list[tuple[int, dict[str, jax.Array]]] = []
        self._window, self._timed = Window(), [0, 0.0, 0.0]  # steps, seconds, seconds waited
        self._in_flight = DispatchThrottle()
        self._total_waited = self._total_seconds = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Exclude the time until now from the throughput."""
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0

    def next_batch(self, feed: Prefetcher) -> Any:
        """Return the next batch; waiting counts only while the devices are idle."""
        idle_since = None
        while True:
            if idle_since is None and self._in_flight.idle():
                idle_since = time.monotonic()
            try:
                batch = feed.get(timeout=None if idle_since else 0.002)
            except queue.Empty:
                continue
            if idle_since:
                self._waited += time.monotonic() - idle_since
            return batch

    def add(self, metrics: dict[str, jax.Array], steps: int = 1) -> Any:
        """Add the mean metrics of ``steps`` steps, and wait if too many are in flight.

        Returns:
          The earlier metrics that were waited for, or None.
        """
        self._metrics.append((steps, metrics))
        self._steps += steps
        return self._in_flight.add(metrics)

    def input_wait(self) -> float | None:
        """Return the fraction of time spent waiting for input; None before :meth:`collect`."""
        return self._total_waited / self._total_seconds if self._total_seconds else None

    def collect(self, step: int) -> dict[str, float]:
        """Add the steps since the last call to the window, and return their mean metrics.

        ``nonfinite`` is the number of steps that were not finite; if they were skipped, means are
        over the other steps.

        Args:
          step: number of finished steps.
        """
        entries, self._metrics = self._metrics, []
        metrics = self.fetch([means for _, means in entries])
        new, self.first_nonfinite = Window(), None
        start = step - sum(steps for steps, _ in entries)
        for (steps, _), means in zip(entries, metrics, strict=True):
            # One by one into the window: the sum is the same wherever a run was interrupted.
            new.add(steps, means)
            self._window.add(steps, means)
            if self.first_nonfinite is None and means["nonfinite"]:
                self.first_nonfinite = _first_nonfinite(start, steps, means)
            start += steps
        if self._steps:
            seconds = time.monotonic() - self._began
            new_times = self._steps, seconds, self._waited
            self._timed = [total + time for total, time in zip(self._timed, new_times, strict=True)]
            self._total_waited += self._waited
            self._total_seconds += seconds
        self.restart_clock()
        return new.means(self.skips_nonfinite)

    def row(self, step: int) -> dict[str, float]:
        """Return the mean metrics of the window if ``step`` completes it, and begin a new one."""
        if not self._window.steps or not self.completes_window(step):
            return {}
        row = self._window.means(self.skips_nonfinite)
        steps, seconds, waited = self._timed
        if steps:
            rate = steps * self.batch_size / seconds
            row["images_per_second"] = round(rate, 1)
            if self.mfu_per_image is not None:
                row["mfu"] = round(rate * self.mfu_per_image, 4)
            row["input_wait_fraction"] = round(waited / seconds, 4)
        self._window, self._timed = Window(), [0, 0.0, 0.0]
        return row

    @property
    def window(self) -> dict[str, float]:
        """The sums of the window so far, for :meth:`resume`; empty without any step."""
        return self._window.to_dict()

    def resume(self, window: dict[str, float]) -> None:
        """Continue the window of a run that was interrupted."""
        self._window = Window.from_dict(window)


def make_meter(experiment: Experiment) -> Meter:
    """Return the meter of a run."""
    return Meter(
        experiment.batch_sizes.train,
        experiment.devices.fetch,
        experiment.step_config.skip_nonfinite,
        mfu_per_image(experiment),
        experiment.intervals.completes_window,
    )


def _first_nonfinite(start: int, steps: int, means: dict[str, Any]) -> int:
    """Return the first of the steps after ``start`` that was not finite, counted from 1.

    For several steps in one call, only their number is known. They count as the last ones, since
    a loss that is not finite usually stays so.
    """
    return round(start + steps * (1 - float(means["nonfinite"]))) + 1
