"""The records of one split of a data set."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np

from flax_resnet.decoding import ImageDecodeError, array_to_pixels, decode_image, warn_once
from flax_resnet.images.pixels import RGB, PixelFormat
from train.data.label_sets import join_classes
from train.data.record_checks import (
    check_fields,
    checked_image,
    checked_label,
    checked_labels,
    raise_failure,
)
from train.data.record_labels import read_labels
from train.data.wrong_rows import TableRows
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.own_code import FAILURES

MAX_CHEAP_READS = 20_000  # records; about a second for small images


@dataclass(frozen=True)
class DataSource:
    """One split: ``len(source)`` records; ``source[i]`` is ``(image, label)``.

    A label is the number of a class or, if an image may have several classes, of a set of classes.

    An image is encoded, as the bytes of a file, or an array as for ``array_to_pixels``. Safe to
    read from several threads, and picklable for worker processes.

    Attributes:
      name: the data set, as in ``config.dataset.name``.
      split: the split, as in ``config.dataset.train_split``.
      class_names: names of the classes; a label is an index into these, or into ``label_sets``.
      records: random access to ``{image_key: image, label_key: int}``.
      image_key: key of the image in a record.
      label_key: key of the label in a record.
      names: the records' names, such as file names, if they have any.
      skipped: files and folders that are not used, by reason; see ``folder_scan``.
      parts: the records as ``(file, start, end)``, if they are parts of files.
      weights: factors of the records' training losses, float32 ``(N,)``, 0 or more; used as they
        are, so a mean of 1 keeps the size of the gradients. None: 1 for every record.
      groups: the records' groups, such as patients, if they have any.
      table: the rows of the table of labels, if there is one.
      fingerprint: a text that changes with the records, if a run must not be resumed with others.
      is_held_out: whether the records were held out from training images.
      label_sets: the sets of classes that labels are indices into, bool ``(S, K)``, for images
        with any number of classes; see ``label_sets.number_sets``. None: every image has one class.

    Raises:
      UsageError: there are no names of classes, not as many ``names`` as records, ``weights`` are
        not finite numbers of 0 or more, one per record and some above 0, or ``label_sets`` do not
        fit the classes.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    records: Sequence[Mapping[str, Any]]
    image_key: str = "image"
    label_key: str = "label"
    names: Sequence[str] | None = None
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: Sequence[tuple[str, int, int]] = ()
    weights: np.ndarray | None = None
    groups: Sequence[str] | None = None
    table: TableRows | None = None
    fingerprint: str = ""
    is_held_out: bool = False
    label_sets: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, int]:
        image, label = self._values(index, self.image_key, self.label_key)
        if type(image) is not bytes:
            image = checked_image(self, index, image)
        if type(label) is not int or not 0 <= label < self.num_labels:
            label = checked_label(self, index, label)
        return image, label

    def decode(
        self,
        index: int,
        warn: Callable[[str, str], None] = warn_once,
        pixels: PixelFormat = RGB,
    ) -> tuple[np.ndarray, int]:
        """Return the image ``(H, W, C)`` and the label of record ``index``.

        Args:
          index: number of the record.
          warn: called with a kind and a text if the image has an oddity.
          pixels: channels and bits of the image.

        Raises:
          ImageDecodeError: the record cannot be read or decoded.
        """
        image, label = self.read(index)
        return to_pixels(image, pixels, warn), label

    def read(self, index: int) -> tuple[bytes | np.ndarray, Any]:
        """Return record ``index``; raise ImageDecodeError if it cannot be read."""
        try:
            return self[index]
        except OSError as error:
            raise ImageDecodeError(f"cannot be read: {error.strerror or error}") from error

    def check(self, max_corrupt_fraction: float) -> None:
        """Raise RunError if more records than a fraction of all cannot be used, rounded up."""
        if self.table is not None:
            self.table.check(max_corrupt_fraction)

    @property
    def label_kind(self) -> str:
        """``"class"``, ``"classes"`` for any number of these per image, or ``"mask"``."""
        return "class" if self.label_sets is None else "classes"

    @property
    def num_labels(self) -> int:
        """Number of different labels: that of the classes, or of their sets."""
        return len(self.class_names if self.label_sets is None else self.label_sets)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Return what a network learns of labels ``(N,)``.

        Returns:
          Classes int32 ``(N,)`` or, with ``label_sets``, uint8 ``(N, K)`` of zeros and ones.
        """
        return labels if self.label_sets is None else self.label_sets[labels].astype(np.uint8)

    def strata(self) -> np.ndarray:
        """Return the targets ``(N,)`` or ``(N, K)`` that parts of the records have equal shares of.

        Takes as long as :meth:`all_labels`.
        """
        return self.targets(self.all_labels())

    def all_label_names(self) -> list[str]:
        """Return :meth:`label_name` of every record; empty if labels have no names, as masks."""
        names = self.label_names()
        return [names[label] for label in self.all_labels()]

    def label_name(self, label: int) -> str:
        """Return the name of a label; those of several classes are joined by ``|``."""
        if self.label_sets is None:
            return self.class_names[label]
        return join_classes(self.label_sets[label], self.class_names)

    def label_names(self) -> list[str]:
        """Return :meth:`label_name` of every label; equal sets of classes have equal names."""
        return [self.label_name(label) for label in range(self.num_labels)]

    @property
    def has_cheap_labels(self) -> bool:
        """Whether :meth:`all_labels` takes at most a few seconds, since it reads no large data."""
        return hasattr(self.records, "all_labels") or len(self) <= MAX_CHEAP_READS

    @property
    def has_cheap_strata(self) -> bool:
        """Whether :meth:`strata` takes at most a few seconds."""
        return self.has_cheap_labels

    def all_labels(self) -> np.ndarray:
        """Return the labels of all records, int32 ``(N,)``, without decoding images.

        Records that hold their labels have a method of this name; others are read one by one, which
        takes as long as reading the data from disk. A record that cannot be read has the label of
        the next one, which replaces it in training, too.
        """
        return self._all_labels

    @cached_property
    def _all_labels(self) -> np.ndarray:
        if hasattr(self.records, "all_labels"):
            return checked_labels(self, self.records.all_labels())
        return read_labels(self._label, len(self), f"reading labels of {self.split}")

    def class_counts(self) -> np.ndarray:
        """Return the number of records of each class, int64 ``(K,)``, by :meth:`all_labels`."""
        counts = np.bincount(self.all_labels(), minlength=self.num_labels)
        return counts if self.label_sets is None else counts @ self.label_sets

    def _values(self, index: int, *keys: str) -> list[Any]:
        """Return the values of a record, unchecked."""
        record = None
        try:
            record = self.records[index]
            return [record[key] for key in keys]
        except FAILURES as error:
            raise_failure(self, index, record, error)

    def _label(self, index: int) -> int:
        return checked_label(self, index, *self._values(index, self.label_key))

    def select(self, indices: np.ndarray) -> Self:
        """Return a source of some of the records, in ascending order of ``indices``."""
        chosen = indices.tolist()
        select = getattr(self.records, "select", partial(SelectedRecords, self.records))
        names = tuple(map(self.record_name, chosen))
        weights = None if self.weights is None else self.weights[indices]
        return replace(
            self,
            records=select(indices),
            names=names,
            parts=(),
            weights=weights,
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
            fingerprint=fingerprint((self.fingerprint, *names), self.strata()[indices], weights),
        )

    def record_name(self, index: int) -> str:
        """Return the name of a record: its file, or ``"record 7"``."""
        return f"record {index}" if self.names is None else self.names[index]


@dataclass(frozen=True)
class SelectedRecords(Sequence):
    """Some of the records of a source."""

    records: Sequence[Mapping[str, Any]]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.records[int(self.indices[index])]


def fingerprint(files: Sequence[str], labels: Sequence[int], weights: np.ndarray | None) -> str:
    """Return a text that changes with the records of a split and with ``DataSource.targets``."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(np.array(labels, "<i4").tobytes())
    if weights is not None:
        digest.update(weights.astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def to_pixels(
    image: bytes | np.ndarray,
    pixels: PixelFormat = RGB,
    warn: Callable[[str, str], None] = warn_once,
) -> np.ndarray:
    """Return the image of a record, encoded or an array, as ``(H, W, C)``.

    Raises:
      ImageDecodeError: it cannot be decoded.
    """
    if isinstance(image, np.ndarray):
        return array_to_pixels(image, pixels)
    return decode_image(image, pixels, warn)


def source_argument(dataset: ConfigDict, meaning: str = "") -> str:
    """Return the argument of a name such as ``"tfds:cifar10"``.

    Args:
      dataset: ``config.dataset``.
      meaning: the argument with an example, for the error; empty if the source has none.

    Raises:
      UsageError: it is missing, or there is one although the source has none.
    """
    kind, _, argument = dataset.name.partition(":")
    if bool(argument) != bool(meaning):
        expected = f"{kind}:{meaning}" if meaning else f"{kind!r}, without an argument"
        raise UsageError(f"config.dataset.name must be {expected}, not {dataset.name!r}")
    return argument


def require_no_names(dataset: ConfigDict) -> None:
    """Raise UsageError if ``image_key`` or ``label_key`` is set, for data without such names."""
    if dataset.image_key or dataset.label_key:
        raise UsageError(
            f"config.dataset.image_key={dataset.image_key!r} and label_key={dataset.label_key!r}"
            f" have no meaning for {dataset.name!r}; reset them to ''"
        )
