"""Data that do not fit memory: decoded on the host by Grain, batch after batch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
from absl import flags

# Images a task. Grain's work for each would be seen beside that of decoding a small one, and a
# whole batch would leave most threads without work at the start and at the end.
CHUNK = 32


def stream(
    load: Callable[[int, range], Any],
    batches: range,
    places: range,
    threads: int,
    workers: int = 0,
) -> Iterator[list[Any]]:
    """Yields the batches as lists of parts, which are loaded ahead of their use.

    The parts are the same whatever the number of threads and workers.

    Args:
      load: gives the part of a batch at some of its places; called out of order. With
        workers it is pickled, and sees a copy of what it refers to.
      batches: the first batch and the end.
      places: the places of a batch to load, this process's.
      threads: that decode, in all workers together; decoding releases the interpreter's lock.
      workers: processes; 0 for the threads of this one.
    """
    parts = -(-len(places) // CHUNK)

    def load_part(number: int) -> Any:
        batch, part = divmod(int(number), parts)
        return load(batch, places[part * CHUNK : (part + 1) * CHUNK])

    # One epoch after the other is already in the numbers: Grain neither shuffles nor repeats.
    dataset = grain.MapDataset.range(batches.start * parts, batches.stop * parts).map(load_part)
    options = grain.ReadOptions(
        num_threads=-(-threads // max(1, workers)), prefetch_buffer_size=max(threads, parts)
    )
    loaded = dataset.to_iter_dataset(options)
    if workers:
        _settle_flags()
        loaded = loaded.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers),
            worker_init_fn=_begin_worker,
        )
    iterator = iter(loaded)
    try:
        for _ in batches:
            yield [next(iterator) for _ in range(parts)]
    finally:
        iterator.close()


def _begin_worker(worker: int, count: int) -> None:
    del worker, count
    _settle_flags()
    # Signals go to all processes of a terminal or a job; the run answers them, and ends these.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """Ends a worker whose run was killed; it would wait for ever for its next task."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _settle_flags() -> None:
    """Grain asks absl's flags how to run workers, and absl refuses before they are parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
