"""Agreement of all processes on stopping after the same step.

A process that left the loop on its own would leave the others waiting for its gradients.
With several processes, a step therefore takes each process's stop flag and returns whether
any is set; every process reads the result of the same step, a few steps later.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from train.engine.devices import Devices
from train.engine.step import AXIS
from train.runtime import distributed
from train.runtime.signals import StopRequest


class StopAgreement:
    """Whether to stop the run; the same in all processes after the same step.

    Args:
      own: the request to this process.
      devices: the run's devices.
    """

    def __init__(self, own: StopRequest, devices: Devices):
        self.own = own
        self._agreed = False
        self._flags: tuple[jax.Array, ...] = ()  # False and True on every device
        if distributed.process_count() > 1:
            count = len(devices.local)
            self._flags = tuple(
                devices.split({"stop": np.full(count, stop)})["stop"] for stop in (False, True)
            )

    def at_start(self) -> bool:
        """Return whether to stop before the first step. All processes must call this."""
        return any(distributed.allgather(bool(self.own)))

    def flag(self) -> jax.Array | None:
        """Return the next step's ``stop``: bool ``(1,)`` per device; None with one process."""
        return self._flags[bool(self.own)] if self._flags else None

    def after(self, finished: Any) -> bool:
        """Return whether to stop, given the result of the last completed step or None."""
        if not self._flags:
            return bool(self.own)
        if finished is not None and "stop" in finished:
            self._agreed |= bool(np.asarray(finished["stop"].addressable_data(0)).any())
        return self._agreed

    @property
    def name(self) -> str:
        """The name of the signal."""
        return self.own.signal.name if self.own else "a signal to another process"


def with_stop_flag(step: Callable) -> Callable:
    """Give a training or evaluation step the stop flag as an argument.

    Args:
      step: ``(state, data, batch) -> (state, metrics)`` or ``-> sums``.

    Returns:
      ``(state, data, batch, stop)`` with the same result, to which it adds ``stop``: the
      maximum of the flags of all devices, int32. The result is unchanged if ``stop`` is None.
    """

    def call(state: Any, data: Any, batch: Any, stop: jax.Array | None) -> Any:
        result = step(state, data, batch)
        if stop is None:
            return result
        any_stop = {"stop": jax.lax.pmax(stop[0].astype(int), AXIS)}
        if isinstance(result, tuple):
            return result[0], result[1] | any_stop
        return result | any_stop

    return call
