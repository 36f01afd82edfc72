"""The data set that the configuration names."""

import os
from collections.abc import Sequence
from dataclasses import replace

from train.data.folds import take_fold
from train.data.hold_out import groups_by_pattern
from train.data.masks import IGNORED
from train.data.registries import SOURCES
from train.data.source import DataSource

# These register their sources.
from train.data.sources import (  # noqa: F401
    arrays,
    drawn_shapes,
    given_source,
    huggingface,
    image_folder,
    segmentation_folder,
    table,
    table_rows,
    tfds_source,
    webdataset,
)
from train.data.splits import HELD_OUT
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.own_code import build

_MASK_KEYS = {"mask_values": (), "ignore_values": (IGNORED,)}  # with their defaults
TABLE_KEYS = ("labels", "class_names", "delimiter", "split_key", "group_key", "weight_key")


def open_source(dataset: ConfigDict, split: str) -> DataSource:
    """Open ``split`` of the data set of ``config.dataset``.

    Raises:
      UsageError: there is no such data set or split.
      RunError: the data are missing or corrupt; the message explains how to get them.
    """
    kind = dataset.name.partition(":")[0]
    if kind not in SOURCES:
        raise UsageError(f"config.dataset.name={dataset.name!r}: {SOURCES.unknown(kind)}")
    dataset = ConfigDict(dataset)  # a copy
    dataset.update(paths(dataset))
    _check_table_keys(dataset, kind)
    takes_fold = dataset.fold and split in (HELD_OUT, dataset.train_split)
    source = build(SOURCES, kind, dataset, dataset.train_split if takes_fold else split)
    if not isinstance(source, DataSource):
        raise UsageError(
            f"the data source {kind!r} returned an object of type {type(source).__name__};"
            " it must return a train.DataSource"
        )
    _check_mask_keys(dataset, source)
    if dataset.group_pattern and source.groups is None:
        source = replace(source, groups=_groups(dataset, source))
    if takes_fold:
        source = take_fold(source, split, dataset)
    if not len(source):
        raise UsageError(f"the split {split!r} of {dataset.name!r} has no images")
    return source


def _groups(dataset: ConfigDict, source: DataSource) -> Sequence[str]:
    if source.names is None:
        raise UsageError(
            f"config.dataset.group_pattern={dataset.group_pattern!r}: the images of"
            f" {dataset.name!r} have no names"
        )
    return groups_by_pattern(dataset.group_pattern, source.names)


def describe_substitute(source: DataSource, split: str) -> str:
    """Return that ``source`` stands for another split of its data, ``split``; empty if it is it."""
    if source.split == split:
        return ""
    held_out = ", held out from training," if source.is_held_out else ""
    return f"{source.name} has no split {split!r}: {source.split!r}{held_out} replaces it"


def has_splits(dataset: ConfigDict) -> bool:
    """Return whether the data of ``config.dataset`` have splits of their own, if that is known."""
    if dataset.name == "folder":
        return image_folder.has_splits(resolve_path(dataset.data_dir))
    if dataset.name == "segmentation_folder":
        return segmentation_folder.has_splits(resolve_path(dataset.data_dir))
    return dataset.name != "table" or table_rows.has_splits(dataset)


def check_folder(dataset: ConfigDict) -> None:
    """Raise UsageError or RunError if the folder of ``config.dataset`` is missing.

    Opening the data does so, too, but pretrained weights are downloaded before.
    """
    if dataset.name in ("folder", "segmentation_folder"):
        image_folder.check_root(dataset.data_dir)


def paths(dataset: ConfigDict) -> dict[str, str]:
    """Return ``data_dir`` and ``labels`` of ``config.dataset`` as absolute paths."""
    labels = dataset.labels and resolve_path(dataset.labels)
    folder = data_dir(dataset)
    if dataset.name == "table" and labels:
        folder = folder or os.path.dirname(labels)
    return {"data_dir": folder, "labels": labels}


def _check_table_keys(dataset: ConfigDict, kind: str) -> None:
    """Raise UsageError if keys of tables are set for another of the project's sources."""
    if kind == "table" or kind not in SOURCES.reserved:
        return
    if given := [f"{key}={dataset[key]!r}" for key in TABLE_KEYS if dataset[key]]:
        raise UsageError(
            f"config.dataset.{' and '.join(given)} have no meaning for {dataset.name!r}, only for"
            " config.dataset.name='table'"
        )


def _check_mask_keys(dataset: ConfigDict, source: DataSource) -> None:
    """Raise UsageError if the values of masks are set for other labels."""
    for name, default in _MASK_KEYS.items() if source.label_kind != "mask" else ():
        if tuple(dataset[name]) != default:
            raise UsageError(
                f"config.dataset.{name}={tuple(dataset[name])} has no meaning for"
                f" {dataset.name!r}, whose images have no masks"
            )


def data_dir(dataset: ConfigDict) -> str:
    """Return ``config.dataset.data_dir`` as an absolute path, or TFDS's default directory."""
    if not dataset.data_dir and dataset.name.partition(":")[0] not in ("digits", "tfds"):
        return ""  # TFDS's default holds nothing for other sources
    return resolve_data_dir(dataset.data_dir)


def resolve_data_dir(chosen: str | None) -> str:
    """Return ``chosen`` as an absolute path, or TFDS's default directory if it is empty."""
    return resolve_path(chosen or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def resolve_path(path: str) -> str:
    """Return a path as an absolute one; that of a bucket as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))
