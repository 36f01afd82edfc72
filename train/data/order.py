"""Which records make training batch n: a pure function of (seed, n).

Nothing is kept between steps, so a run resumes at any step by asking for that step, and
every way of reading the data (resident or streamed, any number of workers) reads the same.
"""

from __future__ import annotations

import functools

import numpy as np


class TrainOrder:
    """Shuffled epochs of whole batches; the images that are left over differ every epoch.

    Args:
      num_records: images in the training split, at least ``batch_size``.
      batch_size: records in a batch.
      seed: decides every epoch's order.
    """

    def __init__(self, num_records: int, batch_size: int, seed: int):
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = num_records // batch_size
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffle)

    def __getitem__(self, step: int) -> np.ndarray:
        """Record numbers of batch ``step``, int32 ``(batch_size,)``."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[batch * self.batch_size :][: self.batch_size]

    def _shuffle(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        return rng.permutation(self.num_records).astype(np.int32)
