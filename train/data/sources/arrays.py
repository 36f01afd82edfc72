"""Images and labels in NumPy arrays, in memory or in ``.npz`` and ``.npy`` files.

Arrays are found by their names: ``x_train`` and ``y_train`` as in Keras's files, ``train_images``
and ``train_labels``, or ``image`` and ``label`` for data without splits.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet.images.pixels import MAX_CHANNELS, RGB, PixelFormat
from flax_resnet.text import truncate
from train.data.registries import register_source
from train.data.source import DataSource, source_argument
from train.data.sources.array_files import ArrayFile, open_arrays
from train.data.sources.labeled_images import (
    CLASS_FILES,
    make_source,
    number_classes,
    number_label_sets,
    read_names,
    sample_fingerprint,
)
from train.data.splits import TRAIN, find_split, replace_name
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

IMAGES, LABELS, CLASS_NAMES = "images", "labels", "class_names"
_WORDS = {
    CLASS_NAMES: ("class_names", "label_names", "classes"),
    IMAGES: ("image", "images", "x"),
    LABELS: ("label", "labels", "target", "targets", "y"),
}
_NAMING = (
    "name them like train_images and train_labels, x_train and y_train, or image and label for"
    " data without splits"
)


def arrays_source(
    images: Sequence[Any],
    labels: Sequence[Any],
    class_names: Sequence[str] | None = None,
    split: str = TRAIN,
) -> DataSource:
    """Return a data source of arrays in memory.

    Args:
      images: uint8 ``(N, H, W, 3)`` RGB, or ``(N, H, W)`` or ``(N, H, W, 1)`` gray; or a sequence
        of such images, which may differ in size. With ``dataset.channels`` and ``dataset.bits``
        in the configuration also of other channels, and uint16.
      labels: integers ``(N,)``, or names of classes; for images with any number of classes zeros
        and ones ``(N, K)``.
      class_names: names of the classes, which integers are indices of; default: all labels,
        sorted. Needed if not every class has an image in every split.
      split: a name for messages, or a part such as ``"train[:80%]"`` to use only that.

    Raises:
      UsageError: type, shape or length of the arrays are wrong.
    """
    where = "the data"
    if isinstance(images, np.ndarray):
        check_images(images, where, _apparent_format(images))
    columns, names, sets = number_labels({"": as_label_array(labels, where)}, where, class_names)
    _check_lengths(len(images), columns[""], where)
    fingerprint = sample_fingerprint(images, columns[""] if sets is None else sets[columns[""]])
    return make_source(
        "arrays", split, images, columns[""], names, fingerprint=fingerprint, label_sets=sets
    )


@register_source("arrays")
def open_array_files(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of the arrays in the file, the folder or the files with a common prefix.

    Raises:
      UsageError: the arrays do not have the names, types or shapes of images and labels, or there
        is no such split.
      RunError: a file is missing or corrupt.
    """
    source_argument(dataset)
    path = dataset.data_dir
    if not path:
        raise UsageError(
            "set --config.dataset.data_dir=FILE.npz, or =FOLDER with .npy files, to the arrays"
        )
    arrays, text_names = _find_arrays(path)
    keys = {IMAGES: dataset.image_key, LABELS: dataset.label_key}
    by_role = _by_role(arrays, keys, path)
    if not by_role[IMAGES]:
        listed = join_names([f"{name} {array.shape}" for name, array in arrays.items()], 6)
        chosen = f" named {dataset.image_key!r}" if dataset.image_key else ""
        raise UsageError(
            f"{path} has no arrays of images{chosen} among {listed or 'none'}; {_NAMING}"
        )
    name = find_split(split, by_role[IMAGES], path)
    if missing := by_role[IMAGES].keys() - by_role[LABELS].keys():
        raise UsageError(
            f"{path} has images but no labels for the split {sorted(missing)[0]!r}; {_NAMING}"
        )
    images = by_role[IMAGES][name]
    check_images(images, images.where, PixelFormat(dataset.channels, dataset.bits))
    labels = {name: by_role[LABELS][name].values() for name in by_role[IMAGES]}
    named = [array.values() for array in by_role[CLASS_NAMES].values()]
    columns, names, sets = number_labels(labels, path, named[0] if named else text_names)
    _check_lengths(len(images), columns[name], f"{path} {name}".rstrip())
    targets = columns[name] if sets is None else sets[columns[name]]
    return make_source(
        "arrays",
        replace_name(split, name),
        images,
        columns[name],
        names,
        files=[(images.where, len(images))],
        fingerprint=sample_fingerprint(images, targets),
        label_sets=sets,
    )


def check_images(images: np.ndarray | ArrayFile, where: str, pixels: PixelFormat = RGB) -> None:
    """Raise UsageError unless the array can hold images of a form."""
    shape, dtype = images.shape, images.dtype
    if shape and not shape[0]:
        raise UsageError(f"{where} has no images")
    deep = dtype.name == "uint16"
    if dtype.name != "uint8" and not (deep and pixels.bits == 16):
        way_out = "images.astype('uint8') if they are 0…255"
        if dtype.kind == "f":
            way_out = f"(255 * images).round().astype('uint8') if they are 0…1, {way_out}"
        if deep:
            way_out = f"{way_out}, or set dataset.bits=16"
        raise UsageError(
            f"the images of {where} must be uint8, not {dtype}; convert them with {way_out}"
        )
    channels = pixels.channels
    valid = (1, 3) if channels in (1, 3) else (channels,)
    if len(shape) == 4 and shape[1] in (*valid, 1, 3) and shape[3] not in valid:
        raise UsageError(
            f"the images of {where} have the shape {shape} with channels first; convert them with"
            " images.transpose(0, 2, 3, 1)"
        )
    if (shape[3:] or (1,))[0] not in valid or len(shape) not in (3, 4) or 0 in shape[1:]:
        gray = ", (N, H, W, 1) or (N, H, W)" * (3 in valid)
        raise UsageError(
            f"the images of {where} must have the shape (N, H, W, {max(valid)}){gray}, not {shape}"
        )


def _apparent_format(images: np.ndarray) -> PixelFormat:
    """Return the form that images seem to have, which a configuration may state or not."""
    bits = 16 if images.dtype == np.uint16 else 8
    last = images.shape[3] if images.ndim == 4 and images.shape[1] not in (1, 3) else 3
    return PixelFormat(last if 1 <= last <= MAX_CHANNELS else 3, bits)


def as_label_array(labels: Sequence[Any], where: str) -> np.ndarray:
    """Return labels as an array; raise UsageError if that would change or drop some of them."""
    if np.ma.is_masked(labels):
        raise UsageError(f"some labels of {where} are masked; leave out these images")
    try:
        array = np.asarray(labels)
    except ValueError:
        raise UsageError(
            f"the labels of {where} are lists of different lengths; for images with several classes"
            " give zeros and ones, a row (K,) per image"
        ) from None
    if array.dtype.kind == "U" and array.ndim == 1:
        others = [label for label in labels if not isinstance(label, str)]
        if others:
            raise UsageError(
                f"the labels of {where} are text and other values, such as {others[0]!r:.40}; use"
                " text or integers for all"
            )
    return array


def number_labels(
    labels: Mapping[str, np.ndarray], where: str, class_names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...], np.ndarray | None]:
    """Return labels by split, names of the classes and, with several per image, the label sets."""
    if all(array.ndim == 2 and array.shape[1] > 1 for array in labels.values()):
        columns, sets, names = number_label_sets(labels, where, class_names)
        return columns, names, sets
    return *number_classes(labels, where, class_names), None


def _check_lengths(images: int, labels: np.ndarray, where: str) -> None:
    if images != len(labels):
        raise UsageError(f"{where} has {images:,} images but {len(labels):,} labels")


def _find_arrays(path: str) -> tuple[dict[str, ArrayFile], list[str] | None]:
    """Return the arrays by name, and the names of the classes if a text file has them."""
    if "://" in path:
        raise UsageError(f"arrays must be on a local disk, not {path!r}")
    if path.endswith(".npz") and not os.path.isdir(path):
        return open_arrays(path), None
    folder, prefix = (path, "") if os.path.isdir(path) else os.path.split(path)
    files = _list_files(folder, prefix)
    archives = [file for file in files.values() if file.endswith(".npz")]
    if len(files) == len(archives) == 1:
        return open_arrays(archives[0]), None
    arrays, names = {}, None
    for stem, file in files.items():
        if file.endswith(".txt"):
            names = read_names(file) if stem in CLASS_FILES else names
        else:
            arrays |= {"_".join(filter(None, (stem, k))): v for k, v in open_arrays(file).items()}
    if not arrays:
        raise RunError(f"{path!r} is neither a .npz file nor the folder or prefix of .npy files")
    return arrays, names


def _list_files(folder: str, prefix: str) -> dict[str, str]:
    """Return the paths of arrays and texts by their name after the prefix, sorted."""
    if not os.path.isdir(folder):
        return {}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise RunError(f"cannot list {folder!r}: {error.strerror}") from error
    return {
        os.path.splitext(name)[0].removeprefix(prefix).strip("_-."): os.path.join(folder, name)
        for name in names
        if name.startswith(prefix) and name.endswith((".npy", ".npz", ".txt")) and name[0] != "."
    }


def _by_role(
    arrays: Mapping[str, ArrayFile], keys: Mapping[str, str], path: str
) -> dict[str, dict[str, ArrayFile]]:
    """Return the arrays of images, labels and class names by split, which is ``""`` if none.

    Args:
      arrays: by name.
      keys: words for images and labels in these names that replace the usual ones.
      path: the file, for messages.
    """
    found: dict[str, dict[str, ArrayFile]] = {role: {} for role in _WORDS}
    origin: dict[tuple[str, str], str] = {}
    for name, array in arrays.items():
        for role, words in _WORDS.items():
            chosen = keys.get(role)
            split = _split_of(name, [chosen] if chosen else words)
            if split is None:
                continue
            if other := origin.get((role, split)):
                raise UsageError(
                    f"{path} has several arrays of {role} for one split: {truncate(other)} and"
                    f" {truncate(name)}; choose with --config.dataset.{role[:-1]}_key=NAME"
                )
            origin[role, split] = name
            found[role][split] = array
            break
    return found


def _split_of(name: str, words: Iterable[str]) -> str | None:
    """Return the part of an array's name beside one of ``words``, or None without any."""
    name = _normalized(name)
    for word in words:
        parts = re.split(rf"(?:^|_){re.escape(_normalized(word))}(?:_|$)", name, maxsplit=1)
        if len(parts) == 2:
            return "_".join(filter(None, parts))
    return None


def _normalized(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name).strip("_").lower()
