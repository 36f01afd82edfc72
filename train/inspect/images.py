"""One pass over all images: sizes, digests, thumbnails and features, in bounded memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tqdm

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.images.pixels import PixelFormat
from flax_resnet.preprocessing import to_viewable
from train.data.duplicates import content_digest
from train.data.images import resize_area
from train.data.label_sets import join_classes, number_sets
from train.data.prefetch import Prefetcher
from train.data.source import DataSource, to_pixels
from train.inspect.near_duplicates import difference_hash
from train.runtime.host import decoding_threads

THUMBNAIL = 16  # side in pixels
_CHUNK = 256  # images that are decoded together
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass
class Images:
    """What is kept of every image of some splits, about 1 KB each; arrays of N entries.

    Attributes:
      sources: the splits.
      split: index of the split.
      record: number in the split.
      label: class index, or that of ``label_sets``.
      size: height and width in pixels ``(N, 2)``; 0 if unreadable.
      digest: of the content, as stored, uint64 ``(N, 2)``.
      hash: difference hash, uint64 ``(N, 2)``.
      thumbnail: uint8 RGB ``(N, 16, 16, 3)``.
      reasons: why images cannot be read, by index.
      features: float32 ``(N, D)``, or None.
      label_sets: sets of classes as in ``DataSource``, of all splits together, or None.
    """

    sources: Sequence[DataSource]
    split: np.ndarray
    record: np.ndarray
    label: np.ndarray
    size: np.ndarray
    digest: np.ndarray
    hash: np.ndarray
    thumbnail: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    features: np.ndarray | None = None
    label_sets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.record)

    @property
    def readable(self) -> np.ndarray:
        """Whether each image can be decoded, bool ``(N,)``."""
        return self.size[:, 0] > 0

    def name(self, index: int) -> str:
        """Return the file of an image, or the name of its record."""
        return self.sources[self.split[index]].record_name(int(self.record[index]))

    @property
    def targets(self) -> np.ndarray:
        """Labels as in ``DataSource.targets``, ``(N,)`` or ``(N, K)``."""
        return self.label if self.label_sets is None else self.label_sets[self.label]

    def class_name(self, index: int) -> str:
        """Return the name of an image's class, or those of several."""
        if self.label_sets is None:
            return self.sources[0].class_names[self.label[index]]
        return self.join_classes(self.label_sets[self.label[index]])

    def join_classes(self, chosen: np.ndarray) -> str:
        """Return the names of some classes, given as bool ``(K,)``."""
        return join_classes(chosen, self.sources[0].class_names) or "no class"

    def class_counts(self, split: int) -> np.ndarray:
        """Return the number of images of each class in a split ``(K,)``."""
        targets = self.targets[self.split == split]
        if targets.ndim == 2:
            return targets.sum(axis=0)
        return np.bincount(targets, minlength=len(self.sources[0].class_names))

    def split_name(self, index: int) -> str:
        """Return the name of an image's split."""
        return self.sources[self.split[index]].split


def read_images(
    sources: Sequence[DataSource],
    pixels: PixelFormat,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    compute: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Images:
    """Decode every image of some splits once.

    Args:
      sources: the splits, with the same classes.
      pixels: channels and bits of the images.
      prepare: makes the input of ``compute`` of an image ``(H, W, C)``.
      compute: returns the features of several inputs; default: none.
    """
    counts = list(map(len, sources))
    images = _allocate(sources, counts)
    features: list[np.ndarray] = []

    def read(index: int) -> np.ndarray | None:
        source, record = sources[images.split[index]], int(images.record[index])
        try:
            content, _ = source[record]
            images.digest[index] = np.frombuffer(content_digest(content), np.uint64)
            decoded = to_pixels(content, pixels, lambda *_: None)
        except (OSError, ImageDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            images.reasons[index] = reason or str(error)
            return None
        images.size[index] = decoded.shape[:2]
        viewable = to_viewable(decoded)
        images.thumbnail[index] = resize_area(viewable, THUMBNAIL, THUMBNAIL)
        images.hash[index] = difference_hash(viewable)
        return None if prepare is None else prepare(decoded)

    chunks = [range(i, min(i + _CHUNK, len(images))) for i in range(0, len(images), _CHUNK)]
    bar = tqdm.tqdm(total=len(images), unit=" images", delay=1, leave=False, disable=None)
    with (
        bar,
        ThreadPoolExecutor(decoding_threads()) as pool,
        Prefetcher(chunks, lambda chunk: (chunk, list(pool.map(read, chunk))), depth=1) as decoded,
    ):
        for chunk, inputs in decoded:
            bar.update(len(chunk))
            readable = [one for one in inputs if one is not None]
            if compute is not None and readable:
                features.append(compute(np.stack(readable)))
    if features:
        images.features = _expand(np.concatenate(features), images.readable)
    return images


def pixel_features(images: Images) -> np.ndarray:
    """Return features of the thumbnails: gray ``16×16``, and coarse color ``4×4``."""
    thumbnails = images.thumbnail.astype(np.float32) / 255
    gray = thumbnails @ _LUMA
    color = thumbnails[..., ::2] - gray[..., None]  # red and blue
    color = color.reshape(len(images), 4, 4, 4, 4, 2).mean(axis=(2, 4))
    return np.concatenate([part.reshape(len(images), -1) for part in (gray, color)], axis=1)


def _allocate(sources: Sequence[DataSource], counts: Sequence[int]) -> Images:
    total = sum(counts)
    label, label_sets = _number_labels(sources)
    return Images(
        sources=sources,
        split=np.repeat(np.arange(len(sources), dtype=np.int16), counts),
        record=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        label=label,
        label_sets=label_sets,
        size=np.zeros((total, 2), np.int32),
        digest=np.zeros((total, 2), np.uint64),
        hash=np.zeros((total, 2), np.uint64),
        thumbnail=np.zeros((total, THUMBNAIL, THUMBNAIL, 3), np.uint8),
    )


def _number_labels(sources: Sequence[DataSource]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the labels of all splits; each split numbers its sets of classes differently."""
    labels = [source.all_labels() for source in sources]
    if sources[0].label_sets is None:
        return np.concatenate(labels), None
    sets = [source.label_sets[own] for source, own in zip(sources, labels, strict=True)]
    return number_sets(np.concatenate(sets))


def _expand(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return values ``(n, D)`` at the n true ``rows`` of ``(N, D)``, which are 0 elsewhere."""
    expanded = np.zeros((len(rows), values.shape[1]), np.float32)
    expanded[rows] = values
    return expanded
