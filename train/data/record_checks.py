"""Checks of the records of a source, which may be a user's code."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.text import truncate
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names
from train.runtime.own_code import describe, place

if TYPE_CHECKING:
    from train.data.source import DataSource


def check_fields(source: DataSource) -> None:
    """Raise UsageError unless classes, names and weights of a source fit its records."""
    where, classes = f"{source.name} {source.split}", source.class_names
    if not classes or isinstance(classes, str) or not all(isinstance(c, str) for c in classes):
        raise UsageError(
            f"the class names of {where} must be a sequence of one text per class, not"
            f" {truncate(repr(classes))}"
        )
    if source.names is not None and len(source.names) != len(source):
        raise UsageError(f"{where} has {len(source):,} records but {len(source.names):,} names")
    if source.weights is not None:
        _check_weights(source, np.asarray(source.weights), where)
    if source.label_sets is not None:
        _check_label_sets(np.asarray(source.label_sets), len(classes), where)


def _check_weights(source: DataSource, weights: np.ndarray, where: str) -> None:
    if weights.shape != (len(source),) or weights.dtype != np.float32:
        raise UsageError(
            f"the weights of {where} must be float32 of the shape ({len(source)},), not"
            f" {weights.dtype} {weights.shape}"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size or not weights.any():
        found = f"{weights[wrong[0]]} of {source.record_name(wrong[0])}" if wrong.size else "all 0"
        raise UsageError(
            f"the weights of {where} must be finite, 0 or more, and some above 0, not {found}"
        )


def _check_label_sets(sets: np.ndarray, classes: int, where: str) -> None:
    if sets.ndim != 2 or not len(sets) or sets.shape[1] != classes or sets.dtype != bool:
        raise UsageError(
            f"the label sets of {where} must be bool of the shape (S, {classes}), one column per"
            f" class, not {sets.dtype} {sets.shape}"
        )


def raise_failure(source: DataSource, index: int, record: Any, error: BaseException) -> NoReturn:
    """Raise the error of reading a record.

    Args:
      source: the source.
      index: number of the record.
      record: the record; None if it could not be read at all.
      error: what was raised.

    Raises:
      RunError: the user's code fails, or the record has the wrong form.
      BaseException: ``error`` itself, if it is for the caller or a bug of the project.
    """
    is_end = isinstance(error, IndexError) and index >= len(source)  # of an iteration
    if is_end or isinstance(error, (OSError, ImageDecodeError, RunError, UsageError)):
        raise error
    keys = {source.image_key, source.label_key}
    if record is not None and not (isinstance(record, Mapping) and keys <= {*record}):
        raise RunError(f"{_name(source, index)} must be {_form(source, record)}") from error
    if place(error) is None:
        raise error
    raise RunError(f"{_name(source, index)} cannot be read: {describe(error)}") from error


def checked_image(source: DataSource, index: int, image: Any) -> bytes | np.ndarray:
    """Return the image of a record; raise RunError if it has the wrong type."""
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image)
    if not isinstance(image, (bytes, bytearray, memoryview)):
        raise RunError(
            f"{_name(source, index)} has an image of the type {type(image).__name__}; it must be"
            " the bytes of a file, or an array (H, W, C) or (H, W)"
        )
    return image


def checked_label(source: DataSource, index: int, label: Any) -> int:
    """Return the label of a record; raise RunError unless it is a number of the source."""
    if type(label) is not int:
        try:
            label = operator.index(label.item() if isinstance(label, np.bool_) else label)
        except TypeError:
            raise RunError(
                f"{_name(source, index)} has the label {truncate(repr(label))}; it must be an"
                " integer, the number of a class"
            ) from None
    if not 0 <= label < source.num_labels:
        raise RunError(_wrong_class(source, index, label))
    return label


def checked_labels(source: DataSource, labels: Any) -> np.ndarray:
    """Return the labels of all records as int32 ``(N,)``; raise RunError if they are no classes."""
    where, labels = f"{source.name} {source.split}", np.asarray(labels)
    if labels.shape != (len(source),) or labels.dtype.kind not in "iub":
        raise RunError(
            f"the labels of {where} must be integers of the shape ({len(source)},), not"
            f" {labels.dtype} {labels.shape}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= source.num_labels))
    if wrong.size:
        raise RunError(_wrong_class(source, wrong[0], labels[wrong[0]]))
    return labels.astype(np.int32)


def _wrong_class(source: DataSource, index: int, label: int) -> str:
    count = source.num_labels
    kind = "classes" if source.label_sets is None else "sets of classes"
    classes = "1 class, which has the label 0" if count == 1 else f"{count:,} {kind}"
    return f"{_name(source, index)} has the label {label}; the source has {classes}"


def _name(source: DataSource, index: int) -> str:
    """Return the number, name and split of a record."""
    name = "" if source.names is None else f" ({truncate(repr(source.names[index]))})"
    return f"record {index}{name} of {source.name} {source.split}"


def _form(source: DataSource, record: Any) -> str:
    found = f"an object of the type {type(record).__name__}"
    if isinstance(record, Mapping):
        found = f"one with {join_names([repr(key) for key in record], 6) or 'nothing'}"
    keys = f"{source.image_key!r} and {source.label_key!r}"
    return f"a dictionary with the keys {keys}, not {found}"
