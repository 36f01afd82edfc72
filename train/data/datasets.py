"""The data set that the configuration names."""

from train.data import tfds_source
from train.data.image_folder import open_folder
from train.data.source import DataSource
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError


def open_source(dataset: ConfigDict, split: str) -> DataSource:
    """Open ``split`` of the data set of ``config.dataset``.

    Raises:
      UsageError: there is no such data set or split.
      RunError: the data are missing or corrupt; the message explains how to get them.
    """
    kind, _, name = dataset.name.partition(":")
    folder = tfds_source.data_dir(dataset)
    if kind == "digits" and not name:
        return tfds_source.open_digits(folder, split)
    if kind == "tfds" and name:
        return tfds_source.open_prepared(name, folder, split)
    if kind == "folder" and not name:
        if not dataset.data_dir:
            raise UsageError("set --config.dataset.data_dir=FOLDER to the folder with the images")
        return open_folder(folder, split, dataset.val_fraction, dataset.val_seed)
    raise UsageError(
        "config.dataset.name must be 'digits', 'folder' or 'tfds:NAME', such as 'tfds:cifar10',"
        f" not {dataset.name!r}"
    )
