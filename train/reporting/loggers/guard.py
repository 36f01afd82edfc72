"""Calls of a logger that can neither end nor delay the run."""

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from flax_resnet.text import error_reason
from train.reporting.console import Console
from train.runtime.formatting import pluralize

MAX_PENDING = 1000  # calls; at the start they wait until a library is imported


class Guard:
    """One logger, whose first error is a warning.

    Calls of a logger with ``in_thread`` wait in a queue for its thread. If that is full, they are
    dropped and counted. All output is printed by the calling thread.

    Args:
      name: the registered name.
      factory: class of the logger, or a function that returns one.
      console: for the warnings.
      arguments: of the factory.
    """

    def __init__(self, name: str, factory: Callable, console: Console, arguments: tuple):
        self._name, self._factory, self._console = name, factory, console
        self._logger: Any = None
        self._failure = ""  # the first one, until it is printed
        self._warned = False
        self._missed: Counter[str] = Counter()  # calls by method
        self._queue: queue.Queue = queue.Queue()
        self._thread: threading.Thread | None = None
        package = getattr(factory, "package", "")
        if package and not _is_installed(package):
            self._failure = (
                f"cannot start: {package} is not installed: pip install 'flax-resnet[{package}]'"
            )
            self._show()
            return
        if getattr(factory, "in_thread", True):
            # A daemon, since one that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
            self._thread.start()
        self.call("create", *arguments)

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method of the logger if it has one, now or later."""
        if self._thread is None:
            self._run(method, arguments)
        elif self._queue.qsize() < MAX_PENDING:
            self._queue.put((method, arguments))
        else:
            self._missed[method] += 1
            self._fail(f"is too slow: {MAX_PENDING:,} calls wait, and further ones are dropped")
        self._show()

    def begin_close(self) -> None:
        """Close the logger, after the calls that wait."""
        if self._thread is None:
            self._run("close", ())
        else:
            self._queue.put(("close", ()))

    def end_close(self, seconds: float) -> None:
        """Wait until the logger is closed, at most some ``seconds``, and print what it missed."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._missed.update(method for method, _ in self._queue.queue)
                self._fail("has not finished in time")
        self._show()
        if self._missed["log"]:
            self._console.note(
                f"logger {self._name!r} missed {pluralize(self._missed['log'], 'row')} of"
                " metrics.jsonl, which has all of them"
            )

    def _work(self) -> None:
        method = ""
        while method != "close":
            method, arguments = self._queue.get()
            self._run(method, arguments)

    def _run(self, method: str, arguments: tuple) -> None:
        try:
            if method == "create":
                self._logger = self._factory(*arguments)
                if self._logger is None:
                    self._fail("cannot start: its function returned None; the run continues")
            else:
                # Without a logger, and for methods that it does not have, this does nothing.
                getattr(self._logger, method, lambda *_: None)(*arguments)
        except (Exception, SystemExit) as error:
            self._missed[method] += 1
            what = "cannot start" if method == "create" else f"failed in {method}()"
            self._fail(f"{what}: {type(error).__name__}: {error_reason(error)}; the run continues")

    def _fail(self, text: str) -> None:
        self._failure = self._failure or text

    def _show(self) -> None:
        if self._failure and not self._warned:
            self._warned = True
            self._console.warn(f"logger {self._name!r} {self._failure}")


def _is_installed(package: str) -> bool:
    with contextlib.suppress(ValueError):  # a module without a spec is there
        return find_spec(package) is not None
    return True
