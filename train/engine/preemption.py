"""Stopping in all processes at the same step, whichever of them was asked to.

A process that left the loop alone would leave the others waiting for its gradients. So where
there are several, whether one was asked travels with its batch, and comes back with the step's
result to all; each looks at the result of the same step, some steps later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from train.engine.step import AXIS
from train.runtime import distributed
from train.runtime.signals import StopRequest


class StopAgreement:
    """Whether the run is to stop, the same in all processes at the same step.

    Args:
      stop: this process's own request.
      devices: of this process.
    """

    def __init__(self, stop: StopRequest, devices: int):
        self.own, self._devices = stop, devices
        self._together = distributed.process_count() > 1
        self._heard = False

    def at_start(self) -> bool:
        """Before the first step, when there is no result to look at. All must call it."""
        return any(distributed.allgather(bool(self.own)))

    def after(self, finished: Any) -> bool:
        """After a step; ``finished`` is the result that it completed, None while there is none."""
        if not self._together:
            return bool(self.own)
        if finished is not None and "stop" in finished:
            self._heard |= bool(np.asarray(finished["stop"].addressable_data(0)).any())
        return self._heard

    @property
    def name(self) -> str:
        """The signal that it was."""
        return self.own.signal.name if self.own else "a signal to another process"

    def marked(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches, each with what this process was asked until it was made."""
        for batch in batches:
            if self._together:
                batch = batch | {"stop": np.full(self._devices, bool(self.own))}
            yield batch


def hearing(step: Callable) -> Callable:
    """A training or evaluation step whose result says ``stop`` where a batch did anywhere."""

    def call(state: Any, data: Any, batch: dict[str, jax.Array]) -> Any:
        batch = dict(batch)
        stop = batch.pop("stop", None)
        result = step(state, data, batch)
        if stop is None:
            return result
        stop = {"stop": jax.lax.pmax(stop[0].astype(int), AXIS)}
        if isinstance(result, tuple):
            return result[0], result[1] | stop
        return result | stop

    return call
