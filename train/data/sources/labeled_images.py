"""Data sources made of images, labels and the names of classes."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.files import read_file
from flax_resnet.text import truncate
from train.data.label_sets import number_sets
from train.data.source import DataSource
from train.data.splits import part_of
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

CLASS_FILES = ("class_names", "classes")  # stems of text files with a name per line
_MAX_NAMES_BYTES = 2**24
_SAMPLE = 64  # images that a fingerprint covers
_NAMES_ADVICE = "give the names of the classes (see docs/data.md)"


@dataclass(frozen=True)
class LabeledImages(Sequence):
    """Records of images and labels.

    Attributes:
      images: random access to encoded images or arrays.
      labels: class indices, of as many records.
      part: the records in use.
    """

    images: Sequence[Any]
    labels: np.ndarray
    part: range | np.ndarray

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self.images[int(self.part[index])], "label": self.label(index)}

    def select(self, indices: np.ndarray) -> Self:
        """Return some of the records."""
        return replace(self, part=np.take(self.part, indices))

    def all_labels(self) -> np.ndarray:
        """Return the labels of all records, in order."""
        return np.take(self.labels, self.part)

    def label(self, index: int) -> int:
        """Return the label of a record without its image."""
        return int(self.labels[self.part[index]])


@dataclass(frozen=True)
class _PartNames(Sequence):
    names: Sequence[str]
    part: range

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> str:
        return self.names[self.part[index]]


def make_source(
    name: str,
    split: str,
    images: Sequence[Any],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    names: Sequence[str] | None = None,
    files: Sequence[tuple[str, int]] = (),
    fingerprint: str = "",
    label_sets: np.ndarray | None = None,
) -> DataSource:
    """Return the source of a split, or of a part of it such as ``train[:80%]``.

    Args:
      name: name of the data set.
      split: the split.
      images: all its images.
      labels: class indices, or those of ``label_sets``, of as many records.
      class_names: names of the classes.
      names: the records' names.
      files: where the images are, as names and numbers of images, to find splits that overlap.
      fingerprint: as in ``DataSource``.
      label_sets: as in ``DataSource``.
    """
    part = part_of(split, len(labels))
    return DataSource(
        name,
        split,
        class_names,
        LabeledImages(images, labels, part),
        names=None if names is None else _PartNames(names, part),
        parts=list(_parts(files, part)),
        fingerprint=fingerprint,
        label_sets=label_sets,
    )


def sample_fingerprint(images: Sequence[Any], targets: np.ndarray) -> str:
    """Return a text that changes with the labels and with the pixels of a sample of the images.

    Args:
      images: encoded images or arrays. Reading all of a file larger than memory takes minutes,
        and data that change as a whole, in order or scale, differ in a few images too.
      targets: ``DataSource.targets`` of as many records.
    """
    digest = hashlib.sha256(np.asarray(targets, "<i4").tobytes())
    for index in np.linspace(0, len(images) - 1, _SAMPLE).astype(int).tolist():
        try:
            image = images[index]
        except (OSError, ImageDecodeError):  # counts as corrupt
            continue
        digest.update(image if isinstance(image, bytes) else np.asarray(image).tobytes())
    return digest.hexdigest()[:16]


def _parts(files: Iterable[tuple[str, int]], part: range) -> Iterator[tuple[str, int, int]]:
    """Yield the records in use of each file, as for ``DataSource.parts``."""
    first = 0
    for name, count in files:
        start, stop = max(part.start - first, 0), min(part.stop - first, count)
        if start < stop:
            yield name, start, stop
        first += count


def number_classes(
    labels: Mapping[str, np.ndarray], where: str, class_names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return class indices, and the names of the classes.

    Args:
      labels: integers or text ``(N,)`` or ``(N, 1)``, by split. Text is the name of a class;
        integers are indices of ``class_names``, without these the names of the classes.
      where: the data, for messages.
      class_names: the names; default: all that occur in any split, sorted.

    Raises:
      UsageError: the labels are no classes, or do not fit the names.
    """
    columns = {
        split: _column(values, f"the labels of {where} {split}".rstrip())
        for split, values in labels.items()
    }
    is_text = {column.dtype.kind == "U" for column in columns.values()}
    if len(is_text) > 1:
        raise UsageError(f"the labels of {where} are numbers in one split and text in another")
    used = np.unique(np.concatenate(list(columns.values())))
    if not used.size:
        raise UsageError(f"{where} has no images")
    if class_names is not None:
        if isinstance(class_names, str):
            raise UsageError(f"class_names must be a list of names, not {truncate(class_names)!r}")
        if isinstance(class_names, np.ndarray):
            class_names = _column(class_names, f"the names of classes of {where}").tolist()
        names = tuple(map(str, class_names))
        _check_names(names, where)
    else:
        names = tuple(map(str, used.tolist()))
    if not is_text.pop():
        _check_numbers(used, len(names), class_names is None, where)
        return {split: column.astype(np.int32) for split, column in columns.items()}, names
    if unknown := set(used.tolist()) - set(names):
        raise UsageError(
            f"{where} has labels that are no names of classes:"
            f" {join_names([repr(truncate(name)) for name in sorted(unknown)], 4)}"
        )
    order = np.argsort(np.array(names))  # the names may be in another order than sorted
    sorted_names = np.array(names)[order]
    return {
        split: order[np.searchsorted(sorted_names, column)].astype(np.int32)
        for split, column in columns.items()
    }, names


def number_label_sets(
    labels: Mapping[str, np.ndarray], where: str, class_names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[str, ...]]:
    """Return labels and label sets, as in ``DataSource``, and the names of the classes.

    Args:
      labels: zeros and ones ``(N, K)``, by split.
      where: the data, for messages.
      class_names: names of the K classes; default: their numbers.

    Raises:
      UsageError: there are other values, or the splits or names differ in the number of classes.
    """
    widths = {matrix.shape[1] for matrix in labels.values()}
    for split, matrix in labels.items():
        wrong = matrix[~np.isin(matrix, (0, 1))] if matrix.dtype.kind in "iubf" else matrix
        if wrong.size:
            name = f"the labels of {where} {split}".rstrip()
            raise UsageError(
                f"{name} have the shape {matrix.shape}, so they must be zeros and ones, not"
                f" {truncate(str(wrong.flat[0]))!r}"
            )
    names = tuple(map(str, range(min(widths)) if class_names is None else class_names))
    _check_names(names, where)
    if widths != {len(names)}:
        counts = " and ".join(map(str, sorted(widths)))
        raise UsageError(
            f"the labels of {where} have columns for {counts} classes, but there are"
            f" {len(names)} names"
        )
    together, sets = number_sets(np.concatenate(list(labels.values())))
    ends = np.cumsum([len(matrix) for matrix in labels.values()])[:-1]
    return dict(zip(labels, np.split(together, ends), strict=True)), sets, names


def read_class_names(folder: str) -> list[str] | None:
    """Return the names of classes in a text file of a folder, if there is one."""
    paths = [os.path.join(folder, f"{stem}.txt") for stem in CLASS_FILES]
    return next((read_names(path) for path in paths if os.path.exists(path)), None)


def read_names(path: str) -> list[str]:
    """Return the lines of a text file in UTF-8; empty ones at its end are no names.

    Raises:
      RunError: it cannot be read.
    """
    try:
        content = read_file(path, _MAX_NAMES_BYTES)
        return content.decode("utf-8-sig").rstrip().splitlines()  # Windows begins with a mark
    except UnicodeDecodeError as error:
        raise RunError(f"the names in {path} are not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise RunError(f"cannot read the names in {path}: {error}") from error


def _column(values: np.ndarray, where: str) -> np.ndarray:
    """Return labels as integers or text ``(N,)``; ``where`` names them in messages."""
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        several = ", or of images with several classes (N, K) of zeros and ones" * (
            values.ndim == 2
        )
        raise UsageError(f"{where} must have the shape (N,){several}, not {values.shape}")
    if values.dtype.kind == "S":
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{where} are text that is not UTF-8") from None
    if values.dtype.kind not in "iubU":
        raise UsageError(
            f"{where} must be integers or text, not {values.dtype}; convert class"
            " numbers with labels.astype('int64')"
        )
    return values


def _check_names(names: tuple[str, ...], where: str) -> None:
    empty = [number for number, name in enumerate(names) if not name.strip()]
    if empty:
        raise UsageError(f"the name of class {empty[0]} of {where} is empty; name every class")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UsageError(f"{where} has several classes named {join_names(repeated, 4)}")


def _check_numbers(used: np.ndarray, count: int, complete: bool, where: str) -> None:
    """Raise UsageError unless the labels in use are class indices.

    Args:
      used: the labels in use, sorted.
      count: number of classes.
      complete: whether all classes must be in use.
      where: the data, for the message.
    """
    if used[0] < 0:
        raise UsageError(
            f"{where} has the label {used[0]}; images without a class cannot be used, and labels"
            " must be 0 or more"
        )
    if not complete and used[-1] >= count:
        raise UsageError(f"{where} has the label {used[-1]}, but names of only {count} classes")
    if complete and used[-1] >= count:
        missing = next(number for number, label in enumerate(used.tolist()) if label != number)
        raise UsageError(
            f"{where} has {count} classes with the labels {used[0]} to {used[-1]}, but no image has"
            f" the label {missing}; renumber them with numpy.unique(labels, return_inverse=True),"
            f" or {_NAMES_ADVICE}"
        )
