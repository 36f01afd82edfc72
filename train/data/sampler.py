"""Which records make training batch n: a pure function of (seed, n).

Nothing is kept between steps, so a run resumes at any step by asking for that step, and
every way of reading the data (resident or streamed, any number of workers) reads the same.
"""

from __future__ import annotations

import itertools
import threading
from typing import NamedTuple

import numpy as np

from train.runtime.errors import UsageError


class ProcessShard(NamedTuple):
    """The part of every batch that one of several processes has: as many places each."""

    process: int = 0
    processes: int = 1

    def places(self, batch_size: int) -> range:
        """This process's places in a batch of all processes together."""
        part = batch_size // self.processes
        return range(self.process * part, (self.process + 1) * part)


class EpochSampler:
    """Shuffled epochs of whole batches; the images that are left over differ every epoch.

    Args:
      num_records: images in the training split, at least ``batch_size``.
      batch_size: records in a batch.
      seed: decides every epoch's order.
      repeats: times that a batch holds each of its images (repeated augmentation, Hoffer et
        al. 2019, arXiv:1901.09335). An epoch has as many steps as without, and so sees so
        many times fewer images; the next one goes on where it ended.
    """

    def __init__(self, num_records: int, batch_size: int, seed: int, repeats: int = 1):
        if batch_size % repeats:
            raise UsageError(
                f"config.augment.repeated_aug={repeats} does not divide config.batch_size={batch_size};"
                f" the nearest that it does is {max(1, round(batch_size / repeats)) * repeats}"
            )
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.repeats = repeats
        self.steps_per_epoch = num_records // batch_size
        self._distinct = batch_size // repeats
        self._shuffled: dict[int, np.ndarray] = {}  # the last epochs asked for
        self._lock = threading.Lock()

    def __reduce__(self):
        return EpochSampler, (self.num_records, self.batch_size, self.seed, self.repeats)

    def __getitem__(self, step: int) -> np.ndarray:
        """Record numbers of batch ``step``, int32 ``(batch_size,)``."""
        shuffle, batch = divmod(step, self.num_records // self._distinct)
        images = self._shuffle(shuffle)[batch * self._distinct :][: self._distinct]
        if self.repeats == 1:
            return images
        # Each time in another order, and not side by side: mixup and cutmix mix neighbours.
        rngs = [np.random.default_rng((self.seed, step, time)) for time in range(self.repeats)]
        orders = [rng.permutation(images) for rng in rngs]
        for one, other in itertools.pairwise(orders):
            if other[0] == one[-1]:
                other[[0, -1]] = other[[-1, 0]]
        return np.concatenate(orders)

    def _shuffle(self, epoch: int) -> np.ndarray:
        with self._lock:  # or at an epoch's start every thread would shuffle for itself
            if epoch not in self._shuffled:
                while len(self._shuffled) > 1:
                    self._shuffled.pop(min(self._shuffled))
                rng = np.random.default_rng((self.seed, epoch))
                order = rng.permutation(self.num_records).astype(np.int32)
                self._shuffled[epoch] = order
            return self._shuffled[epoch]
