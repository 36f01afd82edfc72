"""Data sets of Hugging Face's library ``datasets``: on the hub, in its cache, or saved on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.files import open_regular
from flax_resnet.text import error_reason
from train.data.registries import register_source
from train.data.source import DataSource
from train.data.sources.labeled_images import (
    make_source,
    number_classes,
    number_label_sets,
    sample_fingerprint,
)
from train.data.splits import TRAIN, find_split, replace_name
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

if TYPE_CHECKING:
    import datasets

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "target", "class")
_SAVED = ("dataset_dict.json", "state.json")  # files of save_to_disk()


def huggingface_source(
    data: datasets.Dataset,
    split: str = TRAIN,
    image_key: str = "",
    label_key: str = "",
    class_names: Sequence[str] | None = None,
) -> DataSource:
    """Return a data source of a ``datasets.Dataset``, whose images are decoded as all others.

    Args:
      data: the data set, with a column of images and one of labels.
      split: a name for messages, or a part such as ``"train[:80%]"`` to use only that.
      image_key: column of the images; default: detected.
      label_key: column of the labels; default: detected.
      class_names: names of the classes of integer labels; default: those of the column.

    Raises:
      UsageError: there are no such columns.
    """
    source = _make_source({"": data}, "", split, "hf", image_key, label_key, class_names)
    images, labels = source.records.images, source.records.labels
    # Nothing names these data: whether two splits share records shows only in the images.
    fingerprint = sample_fingerprint(images, source.targets(labels))
    return replace(source, parts=(), fingerprint=fingerprint)


@register_source("hf")
def open_huggingface(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of ``hf:NAME``, ``hf:NAME:CONFIG`` or ``hf:FOLDER``.

    The name ``hf`` without an argument is the folder ``config.dataset.data_dir``, which is the
    cache otherwise.

    Raises:
      UsageError: there is no such split, or it has no column of images or labels.
      RunError: the data cannot be loaded.
    """
    place, _, configuration = dataset.name.partition(":")[2].partition(":")
    cache_dir = dataset.data_dir or None
    if not place:
        place, cache_dir = dataset.data_dir, None
    if not place:
        raise UsageError(
            "config.dataset.name must be 'hf:NAME' of a data set on the Hugging Face hub, such as"
            " 'hf:ylecun/mnist', or 'hf' with config.dataset.data_dir=FOLDER of a saved one"
        )
    if os.path.isfile(place):
        raise UsageError(
            f"{place!r} is a file; name the folder of the data files,"
            f" {os.path.dirname(place) or '.'!r}, or of a saved data set"
        )
    splits = _load(place, configuration, cache_dir)
    name = find_split(split, splits, dataset.name)
    keys = dataset.image_key, dataset.label_key
    return _make_source(splits, name, replace_name(split, name), dataset.name, *keys)


def _load(place: str, configuration: str, cache_dir: str | None) -> Mapping[str, datasets.Dataset]:
    """Load all splits, by name; ``""`` is the name of a data set without splits."""
    try:
        import datasets
    except ImportError as error:
        raise RunError(
            f"Hugging Face data sets need a package that is not installed ({error}); install it"
            " with: pip install 'flax-resnet[hf]'"
        ) from error
    try:
        if any(os.path.isfile(os.path.join(place, file)) for file in _SAVED):
            if configuration:
                raise UsageError(
                    f"{place!r} is a saved data set, which has no configuration {configuration!r};"
                    " omit it"
                )
            loaded = datasets.load_from_disk(place)
        else:
            loaded = datasets.load_dataset(place, configuration or None, cache_dir=cache_dir)
    except UsageError:
        raise
    except Exception as error:  # of this library, of its file systems, and of the network
        raise RunError(
            f"cannot load the Hugging Face data set {place!r}: {error_reason(error)}"
        ) from error
    return loaded if isinstance(loaded, dict) else {str(loaded.split or ""): loaded}


class _Images(Sequence):
    """The encoded images of a column. Safe to read from several threads, and picklable."""

    def __init__(self, data: datasets.Dataset, key: str):
        self._data, self._key = data, key

    def __len__(self) -> int:
        return len(self._data)

    def value(self, index: int) -> Mapping[str, Any]:
        """Return ``bytes`` and ``path`` of an image, one of which may be None."""
        value = self._data[index][self._key]
        return value if isinstance(value, dict) else {"bytes": value, "path": None}

    def __getitem__(self, index: int) -> bytes:
        value = self.value(index)
        if value["bytes"] is not None:
            return value["bytes"]
        if value["path"] is None:
            raise ImageDecodeError("there is no image")
        with open_regular(value["path"]) as file:
            return file.read()


class _Names(Sequence):
    """The names of the images' files, or their numbers, read on access."""

    def __init__(self, images: _Images):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> str:
        return os.path.basename(self._images.value(index)["path"] or "") or f"record {index}"


def _make_source(
    splits: Mapping[str, datasets.Dataset],
    name: str,
    split: str,
    source_name: str,
    image_key: str,
    label_key: str,
    class_names: Sequence[str] | None = None,
) -> DataSource:
    import datasets

    data, where = splits[name], f"{source_name} {name}".rstrip()
    if not isinstance(data, datasets.Dataset):
        raise UsageError(
            f"{where} is a {type(data).__name__}; use a datasets.Dataset, which has random access"
        )
    images = _find_column(data, image_key, _IMAGE_NAMES, "image", _is_image, where)
    labels = _find_column(data, label_key, _LABEL_NAMES, "label", _is_label, where)
    sets, several = None, _is_list_of_classes(data.features[labels])
    feature = data.features[labels].feature if several else data.features[labels]
    if several or (class_names is None and isinstance(feature, datasets.ClassLabel)):
        class_names = feature.names if class_names is None else class_names
        splits = {name: data}
    columns = {
        key: _labels(other, labels, f"{source_name} {key}".rstrip())
        for key, other in splits.items()
        if labels in other.features
    }
    if several:
        matrix = _zeros_and_ones(columns[name], len(class_names), where)
        columns, sets, names = number_label_sets({name: matrix}, source_name, class_names)
    else:
        columns, names = number_classes(columns, source_name, class_names)
    encoded = data.with_format(None).select_columns([images])
    if isinstance(data.features[images], datasets.Image):
        encoded = encoded.cast_column(images, datasets.Image(decode=False))
    column = _Images(encoded, images)
    return make_source(
        source_name,
        split,
        column,
        columns[name],
        names,
        names=_Names(column),
        files=[(where, len(data))],
        label_sets=sets,
    )


def _find_column(
    data: datasets.Dataset, chosen: str, usual: Sequence[str], noun: str, fits: Any, where: str
) -> str:
    """Return the chosen column, or the one that fits; of several, one with a usual name."""
    expected = (chosen,) if chosen else usual
    columns = [key for key, feature in data.features.items() if fits(feature, key in expected)]
    if chosen in columns:
        return chosen
    named = [key for key in columns if key in usual]
    if not chosen and len(named or columns) == 1:
        return (named or columns)[0]
    features = [f"{key} ({type(feature).__name__})" for key, feature in data.features.items()]
    problem = f"no column of {noun}s {chosen!r}" if chosen else f"no column of {noun}s"
    if not chosen and columns:
        problem = f"several columns of {noun}s"
    raise UsageError(
        f"{where} has {problem} among {join_names(features, 10)}; choose with"
        f" --config.dataset.{noun}_key=COLUMN"
    )


def _is_image(feature: Any, is_named: bool) -> bool:
    """Return whether a column has images: bytes only with the expected name."""
    import datasets

    return isinstance(feature, datasets.Image) or (
        is_named and getattr(feature, "dtype", "") in ("binary", "large_binary")
    )


def _is_label(feature: Any, is_named: bool) -> bool:
    """Return whether a column has classes: integers and text only with the expected name."""
    import datasets

    if isinstance(feature, datasets.ClassLabel) or _is_list_of_classes(feature):
        return True
    dtype = str(getattr(feature, "dtype", ""))
    return is_named and dtype.startswith(("int", "uint", "bool", "string", "large_string"))


def _is_list_of_classes(feature: Any) -> bool:
    """Return whether a column has any number of classes per image."""
    import datasets

    return isinstance(getattr(feature, "feature", None), datasets.ClassLabel)


def _zeros_and_ones(lists: Sequence[Sequence[int | None]], classes: int, where: str) -> np.ndarray:
    """Return lists of class numbers as uint8 ``(N, K)``."""
    rows = np.repeat(np.arange(len(lists)), [len(numbers) for numbers in lists])
    numbers = np.array([number for numbers in lists for number in numbers], object)
    wrong = [number for number in numbers.tolist() if number is None or not 0 <= number < classes]
    if wrong:
        raise UsageError(
            f"{where} has the label {wrong[0]} among those of an image, but {classes} classes; an"
            " image without a class has an empty list"
        )
    matrix = np.zeros((len(lists), classes), np.uint8)
    matrix[rows, numbers.astype(np.int64)] = 1
    return matrix


def _labels(data: datasets.Dataset, key: str, where: str) -> np.ndarray | list[list[int]]:
    column = data.with_format("arrow").select_columns([key])[:].column(key)
    if column.null_count:
        raise UsageError(f"{where} has {column.null_count:,} images without a label")
    if _is_list_of_classes(data.features[key]):
        return column.to_pylist()
    values = column.to_numpy()
    return values.astype(str) if values.dtype == object else values
