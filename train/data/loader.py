"""Training and evaluation batches of one split, resident or streamed."""

from __future__ import annotations

from collections.abc import Iterator

import ml_collections
import numpy as np

from flax_resnet.preprocessing import Preprocessing
from train.data import in_memory
from train.data.datasets import open_source
from train.data.random_crop import random_resized_crop
from train.data.reader import BadRecord, BadRecords, Reader
from train.data.sampler import EpochSampler, ProcessShard
from train.data.source import DataSource
from train.data.streaming import stream
from train.runtime.errors import UsageError
from train.runtime.host import core_count

Batch = dict[str, np.ndarray]


def preprocessing_of(dataset: ml_collections.ConfigDict) -> Preprocessing:
    """What ``config.dataset`` does to an image that is not augmented."""
    return Preprocessing(
        resize=round(dataset.image_size / dataset.crop_pct),
        image_size=dataset.image_size,
        interpolation=dataset.interpolation,
        mean=tuple(dataset.mean),
        std=tuple(dataset.std),
    )


class Sizes:
    """Height and width of the training images over the epochs, from ``config.dataset``.

    One other size than evaluation's (Touvron et al. 2019, arXiv:1906.06423), or rising ones,
    which save time at the start (Howard 2018). Each is another compilation of the step.
    """

    def __init__(self, dataset: ml_collections.ConfigDict, training: bool):
        self.others = tuple(dataset.train_sizes) if training else ()
        self._starts = tuple(dataset.train_size_epochs) if training else ()
        self._usual = dataset.image_size
        if len(self.others) == 1 and not self._starts:
            self._starts = (0.0,)
        if len(self.others) != len(self._starts) or (self._starts and self._starts[0]):
            raise UsageError(
                f"config.dataset.train_sizes={self.others} needs the epoch from which each holds,"
                f" the first 0, not config.dataset.train_size_epochs={self._starts}"
            )

    def at(self, epoch: float) -> int:
        """The size in pixels; ``epoch`` counts from 0."""
        size = self._usual
        for start, other in zip(self._starts, self.others, strict=True):
            size = other if epoch >= start else size
        return size


class DataLoader:
    """Batches of one split: open it, then :meth:`load` it. Opening finds what is wrong.

    ``resident`` is what the steps gather from, empty where the split is streamed.

    A batch has either ``record`` int32 ``(B,)`` into ``resident``, or ``image`` uint8
    ``(B, S, S, 3)`` and ``label`` int32 ``(B,)``, of this process's places in it.

    Args:
      config: the run's.
      split: of the data set.
      training: whether to crop at random.
      share: which part of every batch this process has.
      taken: GiB of resident data besides, which count towards the same budget.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        split: str,
        training: bool,
        share: ProcessShard = ProcessShard(),  # noqa: B008 (a constant)
        taken: float = 0.0,
    ):
        self.source: DataSource = open_source(config.dataset, split)
        self.reader = Reader(self.source, config.loader.max_corrupt_fraction)
        self.size = config.dataset.image_size
        self.preprocessing = preprocessing_of(config.dataset)
        self.sizes = Sizes(config.dataset, training)
        self.seed = config.seed
        self.share = share
        self.scale = tuple(config.augment.rrc_scale) if training else (1.0, 1.0)
        self.aspect = tuple(config.augment.rrc_ratio)
        self.workers = config.loader.workers
        self.threads = config.loader.threads or core_count() + 2
        self.gib = len(self.source) * self.size**2 * 3 / 2**30
        self.is_resident = self._fits(config.loader, taken)
        self.resident: dict[str, np.ndarray] = {}
        self._bad_records = BadRecords()
        self._bad = np.zeros(len(self.source), bool)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of the images in a batch."""
        return self.size, self.size, 3

    def __getstate__(self) -> dict:
        """What worker processes need: not the images in memory, nor the run's console."""
        return vars(self) | {"resident": {}, "_bad_records": None}

    def load(self, bad_records: BadRecords | None = None) -> DataLoader:
        """Decodes the images that are to stay in memory; a streamed split has none.

        ``bad_records`` is told what cannot be decoded, now or later.
        """
        self._bad_records = bad_records or self._bad_records
        if self.is_resident:
            self.resident, bad = in_memory.load(
                self.reader, self.preprocessing.crop, self.size, self.threads
            )
            self._bad_records.add(self.reader, bad)
            self._bad[[record.index for record in bad]] = True
        return self

    def train_batches(self, order: EpochSampler, steps: range) -> Iterator[Batch]:
        """The batches of ``steps``, in order."""
        places = self.share.places(order.batch_size)
        if self.is_resident:
            yield from ({"record": order[step][places]} for step in steps)
            return

        def load(step: int, places: range) -> tuple[Batch, list[BadRecord]]:
            size = self.sizes.at(step / order.steps_per_epoch)
            seeds = [(self.seed, step, place) for place in places]
            return self._examples(order[step][places], size, seeds)

        yield from self._streamed(load, steps, places)

    def samples(self, order: EpochSampler, most: int) -> Batch:
        """The first batch's first images and labels, without anything that works ahead."""
        places = self.share.places(order.batch_size)[:most]
        records = order[0][places]
        if self.is_resident:
            return {name: array[records] for name, array in self.resident.items()}
        seeds = [(self.seed, 0, place) for place in places]
        batch, found = self._examples(records, self.sizes.at(0), seeds)
        self._bad_records.add(self.reader, found)
        return batch

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every record once, in batches of all processes' ``batch_size``.

        With ``valid``, bool: false for the examples that only fill the last batch up, and for
        those that cannot be decoded, which are ``bad``.
        """
        steps = range(-(-len(self) // batch_size))
        places = self.share.places(batch_size)

        def numbers(step: int, places: range) -> tuple[np.ndarray, np.ndarray]:
            record = step * batch_size + np.array(places)
            return np.minimum(record, len(self) - 1).astype(np.int32), record < len(self)

        if self.is_resident:
            for step in steps:
                record, there = numbers(step, places)
                bad = there & self._bad[record]
                yield {"record": record, "valid": there & ~bad, "bad": bad}
            return

        def load(step: int, places: range) -> tuple[Batch, list[BadRecord]]:
            record, there = numbers(step, places)
            batch, found = self._examples(record, self.size)
            bad = there & np.isin(record, [record.index for record in found])
            return batch | {"valid": there & ~bad, "bad": bad}, found

        yield from self._streamed(load, steps, places)

    def _streamed(self, load, steps: range, places: range) -> Iterator[Batch]:
        for parts in stream(load, steps, places, self.threads, self.workers):
            batches, bad = zip(*parts, strict=True)
            self._bad_records.add(self.reader, [record for part in bad for record in part])
            yield {name: np.concatenate([part[name] for part in batches]) for name in batches[0]}

    def _examples(
        self, records: np.ndarray, size: int, seeds: list[tuple[int, ...]] | None = None
    ) -> tuple[Batch, list[BadRecord]]:
        """The images and labels of records, with random crops where there are ``seeds``."""
        images = np.empty((len(records), size, size, 3), np.uint8)
        crop = self.preprocessing.at(size).crop
        labels = np.empty(len(records), np.int32)
        found: list[BadRecord] = []
        for place, record in enumerate(records):
            pixels, labels[place], bad = self.reader.read(int(record))
            found += bad
            if seeds is not None and self.scale != (1.0, 1.0):
                rng = np.random.default_rng(seeds[place])
                image = random_resized_crop(pixels, size, rng, self.scale, self.aspect)
            else:
                image = crop(pixels)
            images[place] = image
        return {"image": images, "label": labels}, found

    def _fits(self, loader: ml_collections.ConfigDict, taken: float) -> bool:
        """Whether to hold the split in memory. Random crops are cut by the host each time."""
        if self.scale != (1.0, 1.0) or self.sizes.others:
            if loader.cache_on_device == "always":
                raise UsageError(
                    "config.loader.cache_on_device='always' keeps decoded images, but random crops"
                    f" (augment.rrc_scale={self.scale}) and other sizes than image_size"
                    f" (dataset.train_sizes={self.sizes.others}) are cut anew each time; set one"
                    " of them back"
                )
            return False
        fits = taken + self.gib <= loader.device_cache_gib
        return loader.cache_on_device == "always" or (loader.cache_on_device == "auto" and fits)
