"""Data that do not fit memory: decoded on the host by Grain, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grain
import numpy as np

BATCHES_AHEAD = 2


def stream(
    load: Callable[[int, int], dict[str, np.ndarray]],
    batch_size: int,
    steps: range,
    threads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of ``steps``, decoded by ``threads`` threads ahead of their use.

    Args:
      load: gives the example at ``(step, position in the batch)``; called out of order.
      batch_size: examples in a batch.
      steps: the first batch and the end.
      threads: decoding threads; decoding releases the interpreter's lock.
    """
    examples = grain.MapDataset.range(steps.start * batch_size, steps.stop * batch_size)
    examples = examples.map(lambda number: load(*divmod(int(number), batch_size)))
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, BATCHES_AHEAD * batch_size)
    )
    yield from examples.to_iter_dataset(options).batch(batch_size)
