"""Signals: stop a run after saving, and end other commands on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOPPED = 75  # exit status after a stop: schedulers then start the command again


class StopRequest:
    """A flag that SIGTERM, SIGINT and SIGUSR1 set; a second signal ends the process at once.

    A context manager that restores the previous handlers. Ignored signals stay ignored: shells
    ignore SIGINT for background jobs of a script.

    Args:
      force: handler of a second SIGINT; default: the system's, which ends the process.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self, force: Any = signal.SIG_DFL):
        self._force = force
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        handled = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        self.signal = signal.Signals(number)
        for other in self._previous:
            signal.signal(other, self._force if other == signal.SIGINT else signal.SIG_DFL)
        # The step may still be compiling. Not by print(), which the signal may have interrupted.
        text = f"{self.signal.name}: stopping after this step; a second signal exits at once\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())


@contextlib.contextmanager
def interruptible(leave: Callable[[], None], seconds: float = 5.0) -> Iterator[None]:
    """Make SIGINT end the block with KeyboardInterrupt, wherever it arrives.

    If the block has not ended after ``seconds``, ``leave`` is called in another thread, to end the
    process: no Python handler runs while XLA compiles, and some libraries drop the exception.
    Python also drops it in callbacks, such as JAX's of each garbage collection; here the signal
    is then repeated. During an import ``leave`` is called at once: some crash when interrupted.
    A process that ignores SIGINT continues to do so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    ended = threading.Event()

    def handle(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                leave()
            frame = frame.f_back
        raise KeyboardInterrupt

    def repeat_dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            previous_hook(unraisable)
        else:
            threading.Timer(0.05, repeat).start()

    def repeat() -> None:
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def watch() -> None:
        while number := os.read(reader, 1):
            ours = number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is handle
            if ours and not ended.wait(seconds):
                leave()

    # The interpreter writes the number of each signal here as it arrives.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous_hook, sys.unraisablehook = sys.unraisablehook, repeat_dropped
    previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(previous_writer)
        sys.unraisablehook = previous_hook
        os.close(writer)
        watcher.join()
        os.close(reader)
