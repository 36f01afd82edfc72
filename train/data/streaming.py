"""Data that do not fit in memory: decoded on the host by Grain, batch by batch."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
from absl import flags

# Images per task. With one each, Grain's overhead would show beside the decoding of small
# images; with a whole batch, most threads would be idle at the start and at the end.
CHUNK = 32


def stream(
    load: Callable[[int, range], Any],
    batches: range,
    positions: range,
    threads: int,
    workers: int = 0,
) -> Iterator[list[Any]]:
    """Yield the batches as lists of parts, which are prefetched.

    The parts do not depend on the number of threads and workers.

    Args:
      load: returns the part of a batch at some of its positions; called out of order. With
        workers it is pickled, and works on a copy of the objects it refers to.
      batches: the batches to load.
      positions: this process's positions in a batch.
      threads: decoding threads of all workers together; decoding releases the GIL.
      workers: worker processes; 0: threads of this process.
    """
    parts = -(-len(positions) // CHUNK)

    def load_part(number: int) -> Any:
        batch, part = divmod(int(number), parts)
        return load(batch, positions[part * CHUNK : (part + 1) * CHUNK])

    # The batch numbers run through all epochs: Grain neither shuffles nor repeats.
    dataset = grain.MapDataset.range(batches.start * parts, batches.stop * parts).map(load_part)
    options = grain.ReadOptions(
        num_threads=-(-threads // max(1, workers)), prefetch_buffer_size=max(threads, parts)
    )
    loaded = dataset.to_iter_dataset(options)
    if workers:
        _mark_flags_parsed()
        loaded = loaded.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_init_worker
        )
    iterator = iter(loaded)
    try:
        for _ in batches:
            yield [next(iterator) for _ in range(parts)]
    finally:
        iterator.close()


def _init_worker(worker: int, count: int) -> None:
    del worker, count
    _mark_flags_parsed()
    # A terminal or scheduler sends signals to all processes; the run handles them and then
    # ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """End the worker if its run was killed; it would wait forever for its next task."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _mark_flags_parsed() -> None:
    """Let Grain read absl's flags, which raise an error before they are parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
