"""How long a run will take, as soon as its first steps have shown it."""

import time

from train.engine.devices import DispatchThrottle
from train.engine.intervals import Intervals
from train.reporting.console import Console
from train.runtime.formatting import format_about, pluralize

MIN_SECONDS = 5.0  # of steps before an estimate
_MIN_LEFT = 10.0  # seconds; a shorter rest needs no line


class TimeEstimate:
    """Prints one line with the time left.

    Args:
      console: where to print.
      intervals: the length of the run and its evaluations.
      images: of a batch.
      may_stop: whether the run may end earlier.
    """

    def __init__(self, console: Console, intervals: Intervals, images: int, may_stop: bool = False):
        self._console, self._intervals = console, intervals
        self._images, self._may_stop = images, may_stop
        self._began: tuple[float, int] | None = None
        self._done = False

    def after(self, call: range) -> None:
        """Note that the steps of ``call``, counted from 0, were dispatched."""
        now = time.monotonic()
        if self._began is None:  # the first call compiles
            self._began = now, call.stop
        if self._done or now - self._began[0] < MIN_SECONDS:
            return
        first = self._began[1]
        finished = call.stop - DispatchThrottle.STEPS * len(call)  # the others are in flight
        if finished <= first:
            return
        self._done = True
        rate = (finished - first) / (now - self._began[0])
        left = (self._intervals.num_steps - finished) / rate
        if left < _MIN_LEFT:
            return
        text = f"about {format_about(left)} left at {self._images * rate:,.0f} images/s"
        ahead = self._intervals.evaluations_after(call.start)
        if ahead < self._intervals.evaluations_after(first):
            text += ", with evaluations"
        else:
            text += f", plus {pluralize(ahead, 'evaluation')}"
        self._console.info(f"time:      {text}{', unless it stops early' * self._may_stop}")
