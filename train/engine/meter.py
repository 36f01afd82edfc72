"""What happened between two log lines: mean metrics, throughput, and waiting for input."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from train.data.prefetch import Prefetcher
from train.engine.devices import DispatchThrottle


class Meter:
    """Collects the steps' metrics, which stay on the devices until :meth:`summary`.

    ``share_of_an_image`` is what peaks.share_of_an_image says.
    """

    def __init__(
        self,
        batch_size: int,
        fetch: Callable,
        skips: bool = False,
        share_of_an_image: float | None = None,
    ):
        self.batch_size, self.fetch, self.skips = batch_size, fetch, skips
        self.share_of_an_image = share_of_an_image
        self._metrics: list[tuple[int, dict[str, jax.Array]]] = []
        self._in_flight = DispatchThrottle()
        self._total_waited = self._total_seconds = 0.0
        self.first_nonfinite: int | None = None
        self.last_steps: tuple[int, ...] = ()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves what happened so far out of the throughput."""
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0

    def take(self, feed: Prefetcher) -> Any:
        """The next batch. What is waited for it counts while the devices have nothing to do."""
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
        """Takes the mean metrics of steps, and waits where too many are in flight.

        Gives the metrics that were waited for.
        """
        self._metrics.append((steps, metrics))
        self._steps += steps
        return self._in_flight.add(metrics)

    def input_wait(self) -> float | None:
        """The share of all time that was waited for input; None before a summary tells it."""
        return self._total_waited / self._total_seconds if self._total_seconds else None

    def summary(self) -> dict[str, float]:
        """Means since the last summary; the learning rate is the last step's.

        Steps that were not finite count as ``nonfinite``; where they were skipped, with a loss of
        0, the means are of the others. ``first_nonfinite`` is then how many came before the first.
        """
        steps, metrics = zip(*self._metrics, strict=True)
        metrics = self.fetch(metrics)
        self._metrics = []
        self.last_steps, steps = steps, np.array(steps, float)
        total = {name: np.dot(steps, [mean[name] for mean in metrics]) for name in metrics[0]}
        skipped = total["nonfinite"] if self.skips else 0
        counted = max(steps.sum() - skipped, 1)
        row = {
            "train/loss": float(total["loss"] / counted),
            "train/top1": float(total["top1"] / counted),
            "learning_rate": float(metrics[-1]["learning_rate"]),
        }
        self.first_nonfinite = _first_nonfinite(steps, metrics)
        if self.first_nonfinite is not None:
            row["nonfinite"] = round(float(total["nonfinite"]))
            if skipped == steps.sum():  # not 0, as if it were perfect
                row["train/loss"] = row["train/top1"] = float("nan")
        if self._steps:
            seconds = time.monotonic() - self._began
            rate = self._steps * self.batch_size / seconds
            row["images_per_second"] = round(rate, 1)
            if self.share_of_an_image is not None:
                row["flops_share"] = round(rate * self.share_of_an_image, 4)
            row["input_wait_fraction"] = round(self._waited / seconds, 4)
            self._total_waited += self._waited
            self._total_seconds += seconds
        self.restart_clock()
        return row


def _first_nonfinite(steps: np.ndarray, metrics: list[dict[str, Any]]) -> int | None:
    """Steps before the first that was not finite; of calls of several steps, before the last
    ones, as many as it counts, since what is not finite once mostly stays so."""
    before = 0
    for count, mean in zip(steps, metrics, strict=True):
        if mean["nonfinite"]:
            return round(before + count * (1 - float(mean["nonfinite"])))
        before += count
    return None
