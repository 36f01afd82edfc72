"""The records of training batch n: a pure function of (seed, n).

No state is kept between steps, so a run can resume at any step, and all ways of reading the
data (cached or streamed, any number of workers) yield the same batches.
"""

import itertools
import threading
from typing import NamedTuple

import numpy as np

from train.runtime.errors import UsageError


class ProcessShard(NamedTuple):
    """This process's equal share of every global batch."""

    process: int = 0
    processes: int = 1

    def positions(self, batch_size: int) -> range:
        """Return this process's positions in a global batch."""
        count = batch_size // self.processes
        return range(self.process * count, (self.process + 1) * count)


class EpochSampler:
    """Shuffled epochs of full batches; the images left over differ in every epoch.

    Args:
      num_records: number of images in the training split, at least ``batch_size``.
      batch_size: records per global batch.
      seed: determines the order of every epoch.
      repeats: copies of each image in a batch (repeated augmentation, Hoffer et al. 2019,
        arXiv:1901.09335). The number of steps per epoch is unchanged, so an epoch covers that
        many times fewer images; the next epoch continues with the others.
    """

    def __init__(self, num_records: int, batch_size: int, seed: int, repeats: int = 1):
        if batch_size % repeats:
            nearest = max(1, round(batch_size / repeats)) * repeats
            raise UsageError(
                f"config.augment.repeated_aug={repeats} must divide"
                f" config.batch_size={batch_size}; the nearest valid batch size is {nearest}"
            )
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.repeats = repeats
        self.steps_per_epoch = num_records // batch_size
        self._distinct = batch_size // repeats
        self._permutations: dict[int, np.ndarray] = {}  # of the two latest epochs used
        self._lock = threading.Lock()

    def __reduce__(self):
        return EpochSampler, (self.num_records, self.batch_size, self.seed, self.repeats)

    def __getitem__(self, step: int) -> np.ndarray:
        """Return the record numbers of batch ``step``, int32 ``(batch_size,)``."""
        epoch, batch = divmod(step, self.num_records // self._distinct)
        images = self._permutation(epoch)[batch * self._distinct :][: self._distinct]
        if self.repeats == 1:
            return images
        # Each copy has its own order, and copies are not adjacent, since mixup pairs neighbors.
        rngs = [np.random.default_rng((self.seed, step, copy)) for copy in range(self.repeats)]
        orders = [rng.permutation(images) for rng in rngs]
        for one, other in itertools.pairwise(orders):
            if other[0] == one[-1]:
                other[[0, -1]] = other[[-1, 0]]
        return np.concatenate(orders)

    def _permutation(self, epoch: int) -> np.ndarray:
        with self._lock:  # or every thread would shuffle at the start of an epoch
            if epoch not in self._permutations:
                while len(self._permutations) > 1:
                    self._permutations.pop(min(self._permutations))
                rng = np.random.default_rng((self.seed, epoch))
                order = rng.permutation(self.num_records).astype(np.int32)
                self._permutations[epoch] = order
            return self._permutations[epoch]
