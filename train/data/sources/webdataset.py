"""Images in the tar shards of WebDataset, read in any order."""

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from flax_resnet.text import truncate
from train.data.registries import register_source
from train.data.source import DataSource, source_argument
from train.data.sources.index_cache import index_in_parallel
from train.data.sources.labeled_images import make_source, number_classes, read_class_names
from train.data.sources.random_access import RandomAccessFiles
from train.data.sources.tar_index import TarIndex, index_tar
from train.data.splits import EVAL_SPLITS, TRAIN, find_split, parse_split, replace_name
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError

_MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_LAYOUT = (
    "put the shards into folders train and val, name them like train-000000.tar and val-000000.tar,"
    " or set train_split and eval_split to patterns like 'train-{000000..000012}.tar'"
)


class TarImages(Sequence):
    """The encoded images of shards. Safe to read from several threads, and picklable."""

    def __init__(self, shards: Sequence[str], indexes: Sequence[TarIndex]):
        self.shards = tuple(shards)
        self._ends = np.cumsum([len(index.names) for index in indexes])
        self._starts = np.concatenate([np.array(index.starts, np.int64) for index in indexes])
        self._sizes = np.concatenate([np.array(index.sizes, np.int64) for index in indexes])
        self._files = RandomAccessFiles()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> bytes:
        path = self.shards[int(np.searchsorted(self._ends, index, side="right"))]
        start, size = int(self._starts[index]), int(self._sizes[index])
        try:
            image = self._files.read(path, start, size)
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror or error}") from error
        if len(image) != size:
            raise RunError(f"{path} was truncated while in use; start the command again")
        return image


@register_source("webdataset")
def open_webdataset(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of the shards in the folder ``config.dataset.data_dir``.

    Raises:
      UsageError: there is no such split, or the labels are no classes.
      RunError: a shard is missing or corrupt, or a sample is incomplete.
    """
    source_argument(dataset)
    if not dataset.data_dir:
        raise UsageError("set --config.dataset.data_dir=FOLDER to the folder with the shards")
    if "://" in dataset.data_dir:
        raise UsageError(f"shards must be on a local disk, not {dataset.data_dir!r}")
    split, found = find_shards(dataset.data_dir, split)
    shards = {split: found}
    for other in (dataset.train_split, dataset.eval_split):  # they have the same classes
        try:
            shards.setdefault(*find_shards(dataset.data_dir, other))
        except (RunError, UsageError):  # evaluation may run where there are no training data
            continue
    paths = list(dict.fromkeys(path for some in shards.values() for path in some))
    index = partial(index_tar, image_key=dataset.image_key, label_key=dataset.label_key)
    indexes = dict(zip(paths, index_in_parallel(index, paths, "indexing shards"), strict=True))
    labels = {
        name: _labels([label for path in some for label in indexes[path].labels])
        for name, some in shards.items()
    }
    folder = (
        os.path.dirname(dataset.data_dir) if _is_pattern(dataset.data_dir) else dataset.data_dir
    )
    columns, class_names = number_classes(labels, dataset.data_dir, read_class_names(folder))
    chosen = [indexes[path] for path in shards[split]]
    names = [
        f"{os.path.basename(path)}/{name}"
        for path, index in zip(shards[split], chosen, strict=True)
        for name in index.names
    ]
    files = [(path, len(indexes[path].names)) for path in shards[split]]
    images = TarImages(shards[split], chosen)
    return make_source(
        "webdataset", split, images, columns[split], class_names, names=names, files=files
    )


def _labels(labels: Sequence[int | str]) -> np.ndarray:
    if any(isinstance(label, str) for label in labels):
        return np.array(list(map(str, labels)))
    return np.array(labels, np.int64)


# Shards ------------------------------------------------------------------------------------


def find_shards(data_dir: str, split: str) -> tuple[str, list[str]]:
    """Return a split, or the one that stands for it, and the paths of its shards, in order.

    Args:
      data_dir: a folder with shards or with folders of shards, or a pattern of shards without
        splits.
      split: a name, a pattern of shards in the folder, or a part of either.

    Raises:
      UsageError: there is no such split.
      RunError: there is no such folder, or a shard of a pattern is missing.
    """
    name, *_ = parse_split(split)
    if _is_pattern(name):
        return split, list(_match(os.path.join(data_dir, name)))
    if _is_pattern(data_dir):
        find_split(split, {""}, data_dir)
        return split, list(_match(data_dir))
    splits = _list_splits(data_dir)
    name = find_split(split, splits, data_dir)
    return replace_name(split, name), splits[name]


def _is_pattern(path: str) -> bool:
    return path.endswith(".tar") or bool(re.search(r"[{*?]", os.path.basename(path)))


def _match(pattern: str) -> Iterator[str]:
    """Yield the paths of a pattern with braces, ``*`` and ``?``."""
    for path in _expand(pattern):
        if "*" in path or "?" in path:
            if not (matches := sorted(glob.glob(path.replace("[", "[[]")))):
                raise RunError(f"no shard matches {path!r}")
            yield from matches
        elif os.path.isfile(path):
            yield path
        else:
            raise RunError(f"the shard {path!r} does not exist")


def _expand(pattern: str) -> list[str]:
    """Expand ``{00..12}`` and ``{a,b}`` as a shell does."""
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    bounds = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", match[1])
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        if not 0 <= last - first < _MAX_SHARDS:
            raise UsageError(f"{truncate(pattern)!r} must have 1 to {_MAX_SHARDS:,} shards")
        width = max(map(len, bounds.groups())) if "0" in (bounds[1][0], bounds[2][0]) else 0
        values = [f"{number:0{width}}" for number in range(first, last + 1)]
    else:
        values = match[1].split(",")
    ends = _expand(pattern[match.end() :])
    if len(values) * len(ends) > _MAX_SHARDS:
        raise UsageError(f"{truncate(pattern)!r} must have 1 to {_MAX_SHARDS:,} shards")
    return [pattern[: match.start()] + value + end for value in values for end in ends]


def _list_splits(folder: str) -> Mapping[str, list[str]]:
    """Return the shards in a folder by split, from folders or the names of files."""
    if not os.path.isdir(folder):
        raise RunError(f"{folder!r} does not exist; set --config.dataset.data_dir to the shards")
    splits: dict[str, list[str]] = {}
    compressed = []
    levels = ("*", os.path.join("*", "*"))
    paths = [
        path for level in levels for path in glob.glob(os.path.join(glob.escape(folder), level))
    ]
    for path in sorted(paths):
        parent, name = os.path.split(os.path.relpath(path, folder))
        if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
            compressed.append(path)
        elif name.endswith(".tar") and os.path.isfile(path):
            split = parent or _split_of(name)
            splits.setdefault(split, []).append(path)
    if compressed:  # leaving their images out would train on other data than meant
        only = "" if splits else "only "
        raise RunError(
            f"{folder!r} has {only}compressed shards, such as {compressed[0]}; decompress them, or"
            " move them out of the folder"
        )
    if not splits:
        raise RunError(f"{folder!r} has no shards (*.tar), {_LAYOUT}")
    return splits


def _split_of(name: str) -> str:
    """Return the split in a name such as ``imagenet-train-0001.tar``; ``""`` if there is none."""
    words = re.split(r"[\W_]+", name.removesuffix(".tar").lower())
    return next((word for word in words if word in (TRAIN, *EVAL_SPLITS)), "")
