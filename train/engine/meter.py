"""Mean metrics, throughput and input wait between two rows of metrics."""

import queue
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from train.data.prefetch import Prefetcher
from train.engine.devices import DispatchThrottle


class Meter:
    """Collector of the metrics of steps, which stay on the devices until :meth:`summary`.

    Args:
      batch_size: images per step.
      fetch: copies a tree of metrics to the host.
      skips_nonfinite: whether steps that are not finite are skipped, with a loss of 0.
      mfu_per_image: MFU at one image per second; None if unknown.
    """

    def __init__(
        self,
        batch_size: int,
        fetch: Callable,
        skips_nonfinite: bool = False,
        mfu_per_image: float | None = None,
    ):
        self.batch_size, self.fetch = batch_size, fetch
        self.skips_nonfinite, self.mfu_per_image = skips_nonfinite, mfu_per_image
        self.first_nonfinite: int | None = None
        self._metrics: list[tuple[int, dict[str, jax.Array]]] = []
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
        """Return the fraction of time spent waiting for input; None before any summary."""
        return self._total_waited / self._total_seconds if self._total_seconds else None

    def summary(self, step: int) -> dict[str, float]:
        """Return the mean metrics since the last summary, and the last learning rate.

        ``nonfinite`` is the number of steps that were not finite; if they were skipped, means are
        over the other steps. ``first_nonfinite`` is set to the number of the first of these
        steps, counted from 1, or None.

        Args:
          step: number of finished steps.
        """
        steps, metrics = zip(*self._metrics, strict=True)
        metrics = self.fetch(metrics)
        self._metrics = []
        steps = np.array(steps, float)
        total = {name: np.dot(steps, [mean[name] for mean in metrics]) for name in metrics[0]}
        skipped = total["nonfinite"] if self.skips_nonfinite else 0
        counted = max(steps.sum() - skipped, 1)
        row = {
            "train/loss": float(total["loss"] / counted),
            "train/top1": float(total["top1"] / counted),
            "learning_rate": float(metrics[-1]["learning_rate"]),
        }
        self.first_nonfinite = _first_nonfinite(step - round(steps.sum()), steps, metrics)
        if self.first_nonfinite is not None:
            row["nonfinite"] = round(float(total["nonfinite"]))
            if skipped == steps.sum():  # a loss of 0 would look perfect
                row["train/loss"] = row["train/top1"] = float("nan")
        if self._steps:
            seconds = time.monotonic() - self._began
            rate = self._steps * self.batch_size / seconds
            row["images_per_second"] = round(rate, 1)
            if self.mfu_per_image is not None:
                row["mfu"] = round(rate * self.mfu_per_image, 4)
            row["input_wait_fraction"] = round(self._waited / seconds, 4)
            self._total_waited += self._waited
            self._total_seconds += seconds
        self.restart_clock()
        return row


def _first_nonfinite(start: int, steps: np.ndarray, metrics: list[dict[str, Any]]) -> int | None:
    """Return the first step after ``start`` that was not finite, counted from 1.

    For several steps in one call, only their number is known. They count as the last ones, since
    a loss that is not finite usually stays so.
    """
    for count, mean in zip(steps, metrics, strict=True):
        if mean["nonfinite"]:
            return round(start + count * (1 - float(mean["nonfinite"]))) + 1
        start += count
    return None
