"""Data that a Python program passes, instead of a data set that the configuration names."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.images.pixels import PixelFormat
from flax_resnet.runs import to_pixels
from train.data.registries import register_source
from train.data.source import DataSource
from train.data.sources.arrays import (
    arrays_source,
    as_label_array,
    check_images,
    number_labels,
)
from train.data.sources.huggingface import huggingface_source
from train.data.sources.labeled_images import make_source, sample_fingerprint
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names

GIVEN = "given"
MAX_RECORDS = 2**40  # more are a sequence without an end


@register_source(GIVEN)
def open_given(dataset: ConfigDict, split: str) -> DataSource:
    """Raise UsageError: only the program has these data."""
    raise UsageError(
        "the data of this run were given from Python (config.dataset.name='given'); name others:"
        " train.evaluate has --dataset and --data_dir, training --config.dataset.name"
    )


def as_source(
    data: Any, split: str, dataset: ConfigDict, class_names: Sequence[str] | None = None
) -> DataSource:
    """Return data as a source.

    Args:
      data: a :class:`DataSource`, a pair of arrays ``(images, labels)``, a Hugging Face
        ``datasets.Dataset``, or a sequence of ``{"image", "label"}``.
      split: name for messages.
      dataset: ``config.dataset``, with the form of the images and the keys of records.
      class_names: names of the classes, if the data have none.

    Raises:
      UsageError: the data are none of these, or have the wrong shapes.
    """
    if isinstance(data, DataSource):
        return data
    if hasattr(data, "features") and hasattr(data, "cast_column"):
        keys = dataset.image_key, dataset.label_key
        return huggingface_source(data, split, *keys, class_names=class_names)
    pixels = PixelFormat(dataset.channels, dataset.bits)
    if isinstance(data, tuple) and len(data) == 2:
        images, labels = data
        if not isinstance(images, np.ndarray):  # JAX's and PyTorch's, or a list
            is_array = hasattr(images, "__dlpack__")
            images = np.asarray(images) if is_array else _Images(images, pixels)
        _check_form(images, split, pixels)
        return arrays_source(images, labels, class_names, split)
    return _record_source(data, split, dataset, pixels, class_names)


@dataclass(frozen=True)
class _Images(Sequence):
    """Images of a program, each the bytes of a file, a path, a Pillow image or an array."""

    images: Sequence[Any]
    pixels: PixelFormat
    key: str = ""  # of the image in a record, if these are records

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image = self.images[index][self.key] if self.key else self.images[index]
        if isinstance(image, (bytes, bytearray, memoryview, np.ndarray)):
            return image
        is_file = isinstance(image, (str, os.PathLike))
        return to_pixels(image, self.pixels) if is_file or _is_pillow(image) else np.asarray(image)


def _is_pillow(image: Any) -> bool:
    return hasattr(image, "convert")


def _check_form(images: Sequence[Any], split: str, pixels: PixelFormat) -> None:
    """Raise UsageError unless the array of images, or the first of several arrays, has the form."""
    if isinstance(images, np.ndarray):
        check_images(images, f"the data for {split}", pixels)
    elif len(images):
        with contextlib.suppress(OSError, ImageDecodeError):  # counts as corrupt
            if isinstance(first := images[0], np.ndarray):
                check_images(first[None], f"the data for {split}", pixels)


def _record_source(
    data: Any,
    split: str,
    dataset: ConfigDict,
    pixels: PixelFormat,
    class_names: Sequence[str] | None,
) -> DataSource:
    image_key, label_key = dataset.image_key or "image", dataset.label_key or "label"
    where = f"the data for {split}"
    given = as_label_array([*_labels(data, split, image_key, label_key)], where)
    columns, names, sets = number_labels({"": given}, where, class_names)
    images, labels = _Images(data, pixels, image_key), columns[""]
    _check_form(images, split, pixels)
    fingerprint = sample_fingerprint(images, labels if sets is None else sets[labels])
    return make_source(
        GIVEN, split, images, labels, names, fingerprint=fingerprint, label_sets=sets
    )


def _labels(data: Any, split: str, image_key: str, label_key: str) -> Iterator[Any]:
    """Yield the label of each record, and check that data are a sequence of records."""
    is_array = isinstance(data, (Mapping, str, bytes)) or hasattr(data, "shape")
    if is_array or not (hasattr(data, "__getitem__") and hasattr(data, "__len__") and len(data)):
        raise UsageError(
            f"the data for {split} must be a pair (images, labels), a DataSource, a"
            f" datasets.Dataset or a sequence of records with image and label, not {_form(data)}"
        )
    if len(data) > MAX_RECORDS:
        raise UsageError(f"the data for {split} are endless; drop .repeat(), fit repeats them")
    for index in range(len(data)):
        record = data[index]
        if not isinstance(record, Mapping) or not {image_key, label_key} <= record.keys():
            raise UsageError(
                f"the records for {split} must be {{{image_key!r}: …, {label_key!r}: …}}, but"
                f" record {index} is {_form(record)}"
            )
        yield record[label_key]


def _form(value: Any) -> str:
    """Return type and shape, length or keys of a value, for messages."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"{name} with the keys {join_names([repr(key) for key in value], 6) or 'none'}"
    if hasattr(value, "shape"):
        return f"{name} of the shape {tuple(value.shape)}"
    return f"{name} of length {len(value)}" if isinstance(value, (list, tuple)) else name
