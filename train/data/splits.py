"""Training and evaluation batches of one split, resident or streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import ml_collections
import numpy as np

from train.data import resident
from train.data.decode import centre_crop, random_resized_crop
from train.data.order import TrainOrder
from train.data.source import Source
from train.data.sources import open_source
from train.data.stream import stream
from train.errors import UsageError

Batch = dict[str, np.ndarray]


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Split:
    """Batches of one split: open it, then :meth:`load` it. Opening finds what is wrong.

    ``resident`` is what the steps gather from, empty where the split is streamed.

    A batch has either ``record`` int32 ``(B,)`` into ``resident``, or ``image`` uint8
    ``(B, S, S, 3)`` and ``label`` int32 ``(B,)``.
    """

    def __init__(self, config: ml_collections.ConfigDict, split: str, training: bool):
        self.source: Source = open_source(config.dataset, split)
        self.size = config.dataset.image_size
        self.resize = max(config.dataset.resize, self.size) if config.dataset.resize else self.size
        self.seed = config.seed
        self.scale = tuple(config.augment.crop_scale) if training else (1.0, 1.0)
        self.threads = config.data.threads or cores() + 2
        self.is_resident = self._fits(config.data)
        self.resident: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of the images in a batch."""
        return self.size, self.size, 3

    def load(self) -> Split:
        """Decodes the images that are to stay in memory; a streamed split has none."""
        if self.is_resident:
            self.resident = resident.load(self.source, self.size, self.resize, self.threads)
        return self

    def train_batches(self, order: TrainOrder, steps: range) -> Iterator[Batch]:
        """The batches of ``steps``, in order."""
        if self.is_resident:
            yield from ({"record": order[step]} for step in steps)
            return

        def load(step: int, place: int) -> Batch:
            rng = np.random.default_rng((self.seed, step, place))
            return self._example(order[step][place], rng)

        yield from stream(load, order.batch_size, steps, self.threads)

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every record once; the last batch is filled up with examples that are not ``valid``."""
        steps = range(-(-len(self) // batch_size))

        def number(step: int, place: int | np.ndarray) -> tuple:
            record = step * batch_size + place
            return np.minimum(record, len(self) - 1), record < len(self)

        if self.is_resident:
            for step in steps:
                record, valid = number(step, np.arange(batch_size))
                yield {"record": record.astype(np.int32), "valid": valid}
            return

        def load(step: int, place: int) -> Batch:
            record, valid = number(step, place)
            return {"valid": np.bool_(valid)} | self._example(record)

        yield from stream(load, batch_size, steps, self.threads)

    def _example(self, record: int, rng: np.random.Generator | None = None) -> Batch:
        image, label = self.source.decoded(int(record))
        if rng is not None and self.scale != (1.0, 1.0):
            image = random_resized_crop(image, self.size, rng, self.scale)
        else:
            image = centre_crop(image, self.size, self.resize)
        return {"image": image, "label": np.int32(label)}

    def _fits(self, data: ml_collections.ConfigDict) -> bool:
        """Whether to hold the split in memory. Random crops are cut by the host each time."""
        if self.scale != (1.0, 1.0):
            if data.resident == "always":
                raise UsageError(
                    "config.data.resident='always' keeps decoded images, but"
                    f" config.augment.crop_scale={self.scale} decodes them anew each time;"
                    " set one of them back"
                )
            return False
        gib = len(self.source) * self.size**2 * 3 / 2**30
        return data.resident == "always" or (data.resident == "auto" and gib <= data.resident_gib)
