"""Stopping a run from outside without losing what it has learned."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

STOPPED = 75  # the exit status that asks schedulers to start the command again


class StopRequest:
    """True once SIGTERM, SIGINT or SIGUSR1 came; a second one ends the process at once.

    A context manager: the handlers that were there before are put back.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.signal = signal.Signals(number)
        for again in self.SIGNALS:
            signal.signal(again, signal.SIG_DFL)


@contextlib.contextmanager
def ending_at_once(doing: str = "") -> Iterator[None]:
    """SIGTERM and SIGINT end the process in this block, which has nothing to save.

    ``doing`` is told. Without it the system ends the process, which is for calls that wait
    outside of Python, where no handler of its would run.
    """

    def end(number: int, _) -> None:
        print(f"error: {signal.Signals(number).name} {doing}", file=sys.stderr, flush=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    handler = end if doing else signal.SIG_DFL
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
