"""Work done ahead of its use, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_END = object()


def ahead(items: Iterable[Any], prepare: Callable[[Any], Any], depth: int = 2) -> Iterator[Any]:
    """Yields ``prepare(item)`` for each item, at most ``depth`` of them before they are asked for.

    ``items`` and ``prepare`` run in one thread beside the caller's. What they raise is raised
    where the result would have been. The thread ends when the generator is closed.
    """
    ready: queue.Queue = queue.Queue(depth)
    closed = threading.Event()

    def put(result: Any, error: BaseException | None = None) -> bool:
        while not closed.is_set():
            try:
                ready.put((result, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(prepare(item)):
                    return
            put(_END)
        except BaseException as error:  # to be raised again by whoever asks next
            put(None, error)

    thread = threading.Thread(target=work, name="batches ahead", daemon=True)
    thread.start()
    try:
        while True:
            result, error = ready.get()
            if error is not None:
                raise error
            if result is _END:
                return
            yield result
    finally:
        closed.set()
        thread.join()
