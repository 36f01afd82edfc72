"""The records of training batch n: a pure function of the data and (seed, n).

No state is kept between steps, so a run can resume at any step, and all ways of reading the
data (cached or streamed, any number of workers) yield the same batches.
"""

import itertools
import threading
from typing import NamedTuple

import numpy as np

from train.runtime.errors import UsageError
from train.runtime.formatting import format_percent

_BALANCED = 1  # separates the random numbers of balanced sampling from others of the same seed


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
        self._orders: dict[int, np.ndarray] = {}  # of the two latest epochs used
        self._lock = threading.Lock()

    def __reduce__(self):
        return EpochSampler, (self.num_records, self.batch_size, self.seed, self.repeats)

    def __getitem__(self, step: int) -> np.ndarray:
        """Return the record numbers of batch ``step``, int32 ``(batch_size,)``."""
        epoch, batch = divmod(step, self.num_records // self._distinct)
        images = self._order(epoch)[batch * self._distinct :][: self._distinct]
        if self.repeats == 1:
            return images
        # Each copy has its own order, and copies are not adjacent, since mixup pairs neighbors.
        rngs = [np.random.default_rng((self.seed, step, copy)) for copy in range(self.repeats)]
        orders = [rng.permutation(images) for rng in rngs]
        for one, other in itertools.pairwise(orders):
            if other[0] == one[-1]:
                other[[0, -1]] = other[[-1, 0]]
        return np.concatenate(orders)

    def describe_epoch(self) -> str:
        """Return which images an epoch leaves out; empty if none."""
        left_out = self.num_records - self.steps_per_epoch * self._distinct
        if not left_out:
            return ""
        share = format_percent(left_out / self.num_records)
        return f"each epoch leaves out {left_out:,} images ({share}), different ones every time"

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:  # or every thread would shuffle at the start of an epoch
            if epoch not in self._orders:
                while len(self._orders) > 1:
                    self._orders.pop(min(self._orders))
                self._orders[epoch] = self._shuffle(epoch).astype(np.int32)
            return self._orders[epoch]

    def _shuffle(self, epoch: int) -> np.ndarray:
        """Return the records of an epoch, at least as many as its batches have images."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_records)


class BalancedSampler(EpochSampler):
    """Epochs of full batches in which all classes with images are equally frequent.

    An epoch has as many steps as one of :class:`EpochSampler`. Its images are made of rounds with
    one image of every class, in random order. A class takes its images in shuffled passes over all
    of them: those of a rare class occur several times in an epoch, always about equally often,
    and those of a frequent class continue with the others in the next epoch. Counts of two classes
    in a batch differ by at most 2.

    Args:
      labels: labels of all records ``(N,)``, of which there are at least ``batch_size``.
      batch_size, seed, repeats: as in :class:`EpochSampler`.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int, repeats: int = 1):
        super().__init__(len(labels), batch_size, seed, repeats)
        self._labels = np.asarray(labels)
        by_class = np.argsort(self._labels, kind="stable")
        counts = np.bincount(self._labels)
        parts = np.split(by_class, np.cumsum(counts)[:-1])
        self._records = [records for records in parts if len(records)]

    def __reduce__(self):
        return BalancedSampler, (self._labels, self.batch_size, self.seed, self.repeats)

    def describe_epoch(self) -> str:
        """Return how often an epoch uses the images of the rarest and of the largest class."""
        images = self.steps_per_epoch * self._distinct / len(self._records)
        rare, frequent = (images / f(map(len, self._records)) for f in (min, max))
        return (
            f"classes are sampled equally often: an image of the rarest class {rare:.3g} times per"
            f" epoch, one of the most frequent {frequent:.2g} times on average"
        )

    def _shuffle(self, epoch: int) -> np.ndarray:
        batches = self.num_records // self._distinct
        size = batches * self._distinct
        rounds = -(-size // len(self._records))
        columns = [
            self._class_order(number, epoch * rounds, rounds)
            for number in range(len(self._records))
        ]
        rng = np.random.default_rng((self.seed, epoch, _BALANCED))
        order = rng.permuted(np.stack(columns, axis=1), axis=1).ravel()[:size]
        # Otherwise neighbors, which mixup pairs, would almost never be of one class.
        return rng.permuted(order.reshape(batches, -1), axis=1).ravel()

    def _class_order(self, number: int, start: int, count: int) -> np.ndarray:
        """Return ``count`` records of the endless sequence of a class, from place ``start``."""
        records = self._records[number]
        passes = -(-count // len(records))
        block, offset = divmod(start, passes * len(records))
        parts = []
        for each in (block, block + 1):  # blocks are no shorter than count
            rng = np.random.default_rng((self.seed, each, number, _BALANCED))
            parts.append(rng.permuted(np.tile(records, (passes, 1)), axis=1).ravel())
        return np.concatenate(parts)[offset : offset + count]
