"""Stopping a run from outside without losing what it has learned."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

STOPPED = 75  # the exit status that asks schedulers to start the command again


class StopRequest:
    """True once SIGTERM, SIGINT or SIGUSR1 came; a second one ends the process at once.

    Tells of it, since a step that compiles may take long to end. A context manager: the handlers
    that were there before are put back. A signal that the process ignores stays ignored, as
    shells have it for what runs in the background of a script.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        heard = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.signal = signal.Signals(number)
        for again in self._before:
            signal.signal(again, signal.SIG_DFL)
        told = f"{self.signal.name}: stops after this step; a second signal ends it at once\n"
        with contextlib.suppress(OSError):
            os.write(2, told.encode())  # since print() may be what was interrupted


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


@contextlib.contextmanager
def interruptible(leave: Callable[[], None], seconds: float = 5.0) -> Iterator[None]:
    """SIGINT ends this block, as KeyboardInterrupt, whatever it arrives in.

    Python alone would lose it in a callback, such as JAX's of each garbage collection, where
    exceptions are told and dropped: here it comes again a moment later. Some libraries drop it,
    and while XLA compiles no handler runs: where the block has not ended after ``seconds``,
    ``leave`` is called, in another thread, to end the process. It is called at once in an import,
    of which some end in a crash otherwise. A process that ignores SIGINT goes on doing so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    ended = threading.Event()

    def hear(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                leave()
            frame = frame.f_back
        raise KeyboardInterrupt

    def resend() -> None:
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def again(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not KeyboardInterrupt:
            before_hook(what)
            return
        timer = threading.Timer(0.05, resend)
        timer.daemon = True
        timer.start()

    def watch() -> None:
        while number := arrived.recv(1):
            ours = number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is hear
            if ours and not ended.wait(seconds):
                leave()

    arrived, written = socket.socketpair()
    written.setblocking(False)  # as the interpreter asks, which writes there what arrives
    with arrived, written:
        watcher = threading.Thread(target=watch, name="interrupts", daemon=True)
        watcher.start()
        before_hook, sys.unraisablehook = sys.unraisablehook, again
        before_descriptor = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, hear)
        try:
            yield
        finally:
            ended.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(before_descriptor)
            sys.unraisablehook = before_hook
            written.close()
            watcher.join()
