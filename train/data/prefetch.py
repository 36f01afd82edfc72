"""Work done ahead of its use, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_END = object()


class Prefetcher(Iterator):
    """Gives ``prepare(item)`` for each item, at most ``depth`` of them before they are asked for.

    ``items`` and ``prepare`` run in one thread beside the caller's. What they raise is raised
    where the result would have been. :meth:`close`, or leaving a ``with``, ends the thread.
    """

    def __init__(self, items: Iterable[Any], prepare: Callable[[Any], Any], depth: int = 2):
        self._ready: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(items, prepare), name="batches ahead", daemon=True
        )
        self._thread.start()

    def __next__(self) -> Any:
        return self.get()

    def get(self, timeout: float | None = None) -> Any:
        """The next result. Raises queue.Empty where there is none after ``timeout`` seconds."""
        result, error = self._ready.get(timeout=timeout)
        if error is not None:
            raise error
        if result is _END:
            raise StopIteration
        return result

    def close(self) -> None:
        """Waits for the thread, which is at its next result at the latest."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _work(self, items: Iterable[Any], prepare: Callable[[Any], Any]) -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not self._put(prepare(item), None):
                    return
            self._put(_END, None)
        except BaseException as error:  # to be raised again by whoever asks next
            self._put(None, error)
        finally:
            if hasattr(iterator, "close"):  # a generator that holds threads or processes
                iterator.close()

    def _put(self, result: Any, error: BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put((result, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
