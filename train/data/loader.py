"""Training and evaluation batches of one split."""

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from flax_resnet.preprocessing import Preprocessing
from train.data import in_memory
from train.data.corrupt_records import CorruptRecords
from train.data.datasets import open_source
from train.data.framing import make_framing
from train.data.image_sizes import ImageSizes
from train.data.preprocessing import make_preprocessing
from train.data.reader import CorruptRecord, Reader
from train.data.sampler import EpochSampler, ProcessShard
from train.data.skipped import Finding
from train.data.source import DataSource
from train.data.streaming import stream
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.host import decoding_threads

Batch = dict[str, np.ndarray]
# Loads the examples of a step at some positions of its batch, and names the corrupt records.
Load = Callable[[int, range], tuple[Batch, list[CorruptRecord]]]


class DataLoader:
    """Batches of one split, whose images are cached in device memory or streamed.

    The constructor opens the data and raises the errors that they or the configuration have;
    :meth:`load` decodes the images to cache. A batch holds this process's shard of the global
    batch, in one of two forms that :meth:`examples` reduces to the second inside the step:

    * cached: ``record`` int32 ``(B,)``, indices into ``cached``;
    * streamed: ``image`` uint8 or uint16 ``(B, H, W, C)`` and ``label``, the ``targets`` of the
      source: int32 ``(B,)``, uint8 ``(B, K)``, or masks uint8 ``(B, H, W)``.

    In training on records with weights, a batch also has ``weight`` float32 ``(B,)``.

    Attributes:
      source: the records of the split.
      reader: decodes them.
      preprocessing: resizing, center crop and normalization without augmentation.
      sizes: schedule of the training image size.
      shard: this process's share of every batch.
      cached_on_device: whether the decoded images are cached in device memory.
      cached: after :meth:`load`, ``image`` ``(N, H, W, C)``, ``label`` and perhaps ``weight``, of
        all N records, for the devices; empty if the split is streamed.

    Args:
      config: the run's configuration.
      split: as in ``config.dataset.train_split``.
      training: whether to use random-resized crops and training image sizes.
      shard: this process's share of every batch.
      cached_gib: GiB of other cached data, which share the memory limit.
      source: the records; default: the split of the data set that the configuration names.
    """

    def __init__(
        self,
        config: ConfigDict,
        split: str,
        training: bool,
        shard: ProcessShard = ProcessShard(),  # noqa: B008 (a constant)
        cached_gib: float = 0.0,
        source: DataSource | None = None,
    ):
        dataset, loader = config.dataset, config.loader
        self.source = open_source(dataset, split) if source is None else source
        self.source.check(loader.max_corrupt_fraction)
        self.preprocessing = make_preprocessing(dataset)
        self.reader = Reader(self.source, loader.max_corrupt_fraction, self.preprocessing.pixels)
        self.sizes = ImageSizes(dataset, training)
        self._weights = self.source.weights if training else None
        self.shard = shard
        self._framing = make_framing(config, self.source, training)
        self._seed = config.seed
        self._threads = loader.threads
        self._workers = loader.workers
        self._gib = len(self.source) * self._example_bytes(self.preprocessing) / 2**30
        fixed = self._framing.is_fixed and not self.sizes.train_sizes
        self.cached_on_device = _cache_on_device(config, fixed, cached_gib + self._gib)
        self.cached: dict[str, np.ndarray] = {}
        self._corrupt_records = CorruptRecords()
        self._is_corrupt = np.zeros(len(self.source), bool)

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> dict[str, Any]:
        """Return what worker processes need: neither cached images nor the run's console."""
        return vars(self) | {"cached": {}, "_corrupt_records": None}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of the images in a batch; in training if ``train_sizes`` is not set."""
        return self.preprocessing.shape

    @property
    def smallest_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of the smallest images in a training batch."""
        sides = self.sizes.train_sizes or (self.preprocessing.shorter_side,)
        return self.preprocessing.at(min(sides)).shape

    @property
    def cached_gib(self) -> float:
        """Device memory of the cached images in GiB; 0 if the split is streamed."""
        return self._gib if self.cached_on_device else 0.0

    def findings(self) -> list[Finding]:
        """Return what a user should know of how the images are used. Takes a second at most."""
        return self._framing.findings(self.source, self.preprocessing)

    def picture_pixels(self, batch: Batch) -> np.ndarray:
        """Return all pixels ``(M, C)`` of the valid images of a streamed batch, without padding."""
        images, labels = (batch[name][batch["valid"]] for name in ("image", "label"))
        return images[~self._framing.is_padding(images, labels, self.preprocessing.fill)]

    def load(self, corrupt_records: CorruptRecords | None = None) -> Self:
        """Decode the images to cache, if any, and return the loader.

        Args:
          corrupt_records: receives the records that cannot be decoded, now or later.
        """
        self._corrupt_records = corrupt_records or self._corrupt_records
        if self.cached_on_device:
            self.cached, corrupt = in_memory.load(
                self.reader, self._framing, self.preprocessing, self._threads, self._weights
            )
            self._corrupt_records.add(self.reader, corrupt)
            self._is_corrupt[[record.index for record in corrupt]] = True
        return self

    def examples(self, cached: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch with its images and labels. Runs inside the step.

        Args:
          cached: the attribute of that name, on the device.
          batch: cached or streamed.
        """
        return in_memory.gather(cached, batch) if self.cached_on_device else batch

    def train_batches(self, sampler: EpochSampler, steps: range) -> Iterator[Batch]:
        """Yield the batches of ``steps``, in order."""
        positions = self.shard.positions(sampler.batch_size)
        if self.cached_on_device:
            yield from ({"record": sampler[step][positions]} for step in steps)
            return

        def load(step: int, positions: range) -> tuple[Batch, list[CorruptRecord]]:
            size = self.sizes.at(step / sampler.steps_per_epoch)
            seeds = [(self._seed, step, position) for position in positions]
            return self._decode(sampler[step][positions], size, seeds)

        yield from self._stream(load, steps, positions)

    def samples(self, sampler: EpochSampler, max_count: int) -> tuple[np.ndarray, Batch]:
        """Return the first records of the first batch, and their images and labels."""
        positions = self.shard.positions(sampler.batch_size)[:max_count]
        records = sampler[0][positions]
        if self.cached_on_device:
            return records, {name: array[records] for name, array in self.cached.items()}
        seeds = [(self._seed, 0, position) for position in positions]
        batch, corrupt = self._decode(records, self.sizes.at(0), seeds)
        self._corrupt_records.add(self.reader, corrupt)
        return records, batch

    def center_crops(self, records: np.ndarray) -> np.ndarray:
        """Return images of the split as evaluation uses them, ``(N, H, W, C)``."""
        if self.cached_on_device:
            return self.cached["image"][records]
        return self._decode(records, self.preprocessing.shorter_side)[0]["image"]

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield every record once, in batches of ``batch_size`` over all processes.

        Batches also hold ``valid`` and ``bad``, bool ``(B,)``: ``valid`` is False for corrupt
        records, which are ``bad``, and for the padding of the last batch.
        """
        steps = range(-(-len(self) // batch_size))
        positions = self.shard.positions(batch_size)

        def records_at(step: int, positions: range) -> tuple[np.ndarray, np.ndarray]:
            record = step * batch_size + np.array(positions)
            return np.minimum(record, len(self) - 1).astype(np.int32), record < len(self)

        if self.cached_on_device:
            for step in steps:
                record, exists = records_at(step, positions)
                bad = exists & self._is_corrupt[record]
                yield {"record": record, "valid": exists & ~bad, "bad": bad}
            return

        def load(step: int, positions: range) -> tuple[Batch, list[CorruptRecord]]:
            record, exists = records_at(step, positions)
            batch, corrupt = self._decode(record, self.preprocessing.shorter_side)
            bad = exists & np.isin(record, [record.index for record in corrupt])
            return batch | {"valid": exists & ~bad, "bad": bad}, corrupt

        yield from self._stream(load, steps, positions)

    def _example_bytes(self, preprocessing: Preprocessing) -> int:
        return preprocessing.nbytes + self._framing.label_bytes(preprocessing)

    def _stream(self, load: Load, steps: range, positions: range) -> Iterator[Batch]:
        def load_and_note(step: int, positions: range) -> tuple:
            return *load(step, positions), dict(self.reader.oddities)

        size = max((self.preprocessing.shorter_side, *self.sizes.train_sizes))
        record_bytes = self._example_bytes(self.preprocessing.at(size))
        threads, workers = self._threads or decoding_threads(), self._workers
        for parts in stream(load_and_note, steps, positions, threads, workers, record_bytes):
            batches, corrupt, oddities = zip(*parts, strict=True)
            for noted in oddities:  # by worker processes, which have readers of their own
                self.reader.oddities.update(noted | self.reader.oddities)
            self._corrupt_records.add(self.reader, [record for part in corrupt for record in part])
            yield {name: np.concatenate([part[name] for part in batches]) for name in batches[0]}

    def _decode(
        self, records: np.ndarray, size: int, seeds: list[tuple[int, ...]] | None = None
    ) -> tuple[Batch, list[CorruptRecord]]:
        """Return images, labels and weights of records, cropped at random with ``seeds``."""
        preprocessing = self.preprocessing.at(size)
        images = np.empty((len(records), *preprocessing.shape), preprocessing.pixels.dtype)
        labels = self._framing.empty_labels(len(records), preprocessing)
        sources = np.empty(len(records), np.int32)
        corrupt: list[CorruptRecord] = []
        for i, record in enumerate(records):
            image, label, replaced = self.reader.read(int(record))
            sources[i] = (record + len(replaced)) % len(self)
            corrupt += replaced
            seed = None if seeds is None else seeds[i]
            images[i], labels[i] = self._framing(image, label, preprocessing, seed)
        batch = {"image": images, "label": self.source.targets(labels)}
        if self._weights is not None:
            batch["weight"] = self._weights[sources]
        return batch, corrupt


def _cache_on_device(config: ConfigDict, fixed: bool, gib: float) -> bool:
    """Decide whether to cache a split in device memory.

    Args:
      config: the run's configuration.
      fixed: whether the host crops an image to the same pixels every time.
      gib: memory of all cached images with this split.

    Raises:
      UsageError: ``cache_on_device`` is ``"always"`` but the crops are not fixed.
    """
    mode = config.loader.cache_on_device
    if not fixed and mode == "always":
        raise UsageError(
            "config.loader.cache_on_device='always' caches decoded images, but random-resized"
            f" crops (augment.rrc_scale={tuple(config.augment.rrc_scale)}) and training image sizes"
            f" (dataset.train_sizes={tuple(config.dataset.train_sizes)}) need another crop each"
            " time; reset one of them"
        )
    fits = gib <= config.loader.device_cache_gib
    return fixed and (mode == "always" or (mode == "auto" and fits))
