"""Stopping a run from outside without losing what it has learned."""

from __future__ import annotations

import signal

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
