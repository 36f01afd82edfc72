"""The data set that the configuration names."""

import os

# These register their sources.
from train.data import (  # noqa: F401
    arrays,
    given_source,
    huggingface,
    image_folder,
    tfds_source,
    webdataset,
)
from train.data.registries import SOURCES
from train.data.source import DataSource
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.own_code import build


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
    dataset.data_dir = data_dir(dataset)
    source = build(SOURCES, kind, dataset, split)
    if not isinstance(source, DataSource):
        raise UsageError(
            f"the data source {kind!r} returned an object of type {type(source).__name__};"
            " it must return a train.DataSource"
        )
    if not len(source):
        raise UsageError(f"the split {split!r} of {dataset.name!r} has no images")
    return source


def data_dir(dataset: ConfigDict) -> str:
    """Return ``config.dataset.data_dir`` as an absolute path, or TFDS's default directory."""
    if not dataset.data_dir and dataset.name.partition(":")[0] not in ("digits", "tfds"):
        return ""  # TFDS's default holds nothing for other sources
    return resolve_data_dir(dataset.data_dir)


def resolve_data_dir(chosen: str | None) -> str:
    """Return ``chosen`` as an absolute path, or TFDS's default directory if it is empty."""
    chosen = chosen or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in chosen:  # a bucket
        return chosen
    return os.path.abspath(os.path.expanduser(chosen))
