"""What happened between two log lines: mean metrics, throughput, and waiting for input."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from train.data.ahead import Ahead
from train.parallel import InFlight


class Meter:
    """Collects the steps' metrics, which stay on the devices until :meth:`summary`."""

    def __init__(self, batch_size: int, fetch: Callable):
        self.batch_size, self.fetch = batch_size, fetch
        self._metrics: list[tuple[int, dict[str, jax.Array]]] = []
        self._in_flight = InFlight()
        self._total_waited = self._total_seconds = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves what happened so far out of the throughput."""
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0

    def take(self, feed: Ahead) -> Any:
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

    def add(self, metrics: dict[str, jax.Array], steps: int = 1) -> None:
        """Takes the mean metrics of steps, and waits where too many are in flight."""
        self._metrics.append((steps, metrics))
        self._steps += steps
        self._in_flight.add(metrics)

    def input_wait(self) -> float | None:
        """The share of all time that was waited for input; None before a summary tells it."""
        return self._total_waited / self._total_seconds if self._total_seconds else None

    def summary(self) -> dict[str, float]:
        """Means since the last summary; the learning rate is the last step's."""
        steps, metrics = zip(*self._metrics, strict=True)
        metrics = self.fetch(metrics)
        self._metrics = []
        row = {
            "train/loss": float(np.average([mean["loss"] for mean in metrics], weights=steps)),
            "train/top1": float(np.average([mean["top1"] for mean in metrics], weights=steps)),
            "learning_rate": float(metrics[-1]["learning_rate"]),
        }
        if self._steps:
            seconds = time.monotonic() - self._began
            row["images_per_second"] = round(self._steps * self.batch_size / seconds, 1)
            row["input_wait_fraction"] = round(self._waited / seconds, 4)
            self._total_waited += self._waited
            self._total_seconds += seconds
        self.restart_clock()
        return row
