"""Prefetching in a thread."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from train.runtime.worker import end_starting_workers

_END = object()


class Prefetcher(Iterator, AbstractContextManager):
    """Iterator over ``prepare(item)`` for each item, computed ahead of time in one thread.

    An exception of ``items`` or ``prepare`` is raised at the position of its result.
    :meth:`close`, or leaving a ``with`` block, ends the thread.

    Args:
      items: the iterable to consume.
      prepare: called with each item.
      depth: maximum number of results to hold ready.
    """

    def __init__(self, items: Iterable[Any], prepare: Callable[[Any], Any], depth: int = 2):
        self._results: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(items, prepare), name="prefetch", daemon=True
        )
        self._thread.start()

    def __next__(self) -> Any:
        return self.get()

    def get(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Raises:
          queue.Empty: no result is ready after ``timeout`` seconds.
          StopIteration: all items are consumed.
        """
        result, error = self._results.get(timeout=timeout)
        if error is not None:
            raise error
        if result is _END:
            self._results.put((_END, None))  # for further calls, which would wait forever
            raise StopIteration
        return result

    def close(self) -> None:
        """End the thread after its current result, and wait for it."""
        self._closed.set()
        self._thread.join()

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is not None:  # or the thread would wait for the first batch of all workers
            end_starting_workers()
        self.close()

    def _work(self, items: Iterable[Any], prepare: Callable[[Any], Any]) -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not self._put(prepare(item), None):
                    return
            self._put(_END, None)
        except BaseException as error:  # raised again in get()
            self._put(None, error)
        finally:
            if hasattr(iterator, "close"):  # a generator that holds threads or processes
                iterator.close()

    def _put(self, result: Any, error: BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._results.put((result, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
