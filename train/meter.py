"""What happened between two log lines: mean metrics, throughput, and waiting for input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np

from train.parallel import InFlight


class Meter:
    """Collects the steps' metrics, which stay on the devices until :meth:`summary`."""

    def __init__(self, batch_size: int, fetch: Callable):
        self.batch_size, self.fetch = batch_size, fetch
        self._metrics: list[dict[str, jax.Array]] = []
        self._in_flight = InFlight()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves what happened so far out of the throughput."""
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for input."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Takes a step's metrics, and waits where too many steps are in flight."""
        self._metrics.append(metrics)
        self._steps += 1
        self._in_flight.add(metrics)

    def summary(self) -> dict[str, float]:
        """Means since the last summary; the learning rate is the last step's."""
        metrics = self.fetch(self._metrics)
        self._metrics = []
        row = {
            "train/loss": float(np.mean([step["loss"] for step in metrics])),
            "train/top1": float(np.mean([step["top1"] for step in metrics])),
            "learning_rate": float(metrics[-1]["learning_rate"]),
        }
        if self._steps:
            seconds = time.monotonic() - self._began
            row["images_per_second"] = round(self._steps * self.batch_size / seconds, 1)
            row["input_wait_fraction"] = round(self._waited / seconds, 4)
        self.restart_clock()
        return row
