"""Where images come from: :func:`open_source` gives a :class:`Source`, whatever the kind."""

from __future__ import annotations

import ml_collections

from train.data import tfds_source
from train.data.image_folder import open_folder
from train.data.source import DataSource
from train.runtime.errors import UsageError


def open_source(dataset: ml_collections.ConfigDict, split: str) -> DataSource:
    """Opens ``split`` of the data set that ``config.dataset`` names.

    Raises UsageError for a name or split that does not exist and RunError, telling how to
    get them, where the data are not there.
    """
    kind, _, name = dataset.name.partition(":")
    if kind == "digits" and not name:
        return tfds_source.open_digits(tfds_source.data_dir(dataset), split)
    if kind == "tfds" and name:
        return tfds_source.open_prepared(name, tfds_source.data_dir(dataset), split)
    if kind == "folder" and not name:
        if not dataset.data_dir:
            raise UsageError(
                "name the folder with the pictures with --config.dataset.data_dir=FOLDER"
            )
        folder = tfds_source.data_dir(dataset)
        return open_folder(folder, split, dataset.val_fraction, dataset.val_seed)
    raise UsageError(
        "config.dataset.name must be 'digits', 'folder' or 'tfds:NAME', such as 'tfds:cifar10',"
        f" not {dataset.name!r}"
    )
