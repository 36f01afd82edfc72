"""Data that do not fit memory: decoded on the host by Grain, batch after batch."""

from __future__ import annotations

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
            worker_init_fn=lambda worker, count: _settle_flags(),
        )
    iterator = iter(loaded)
    for _ in batches:
        yield [next(iterator) for _ in range(parts)]


def _settle_flags() -> None:
    """Grain asks absl's flags how to run workers, and absl refuses before they are parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
