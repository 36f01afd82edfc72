"""Data that a Python program passes, instead of a data set that the configuration names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data.registries import register_source
from train.data.source import DataSource
from train.data.sources.arrays import arrays_source
from train.data.sources.huggingface import huggingface_source
from train.data.sources.labeled_images import make_source, number_classes, sample_fingerprint
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

GIVEN = "given"


@register_source(GIVEN)
def open_given(dataset: ConfigDict, split: str) -> DataSource:
    """Raise UsageError: only the program has these data."""
    raise UsageError(
        "the data of this run were given from Python (config.dataset.name='given'); name others:"
        " train.evaluate has --dataset and --data_dir, training --config.dataset.name"
    )


def as_source(data: Any, split: str, class_names: Sequence[str] | None = None) -> DataSource:
    """Return data as a source.

    Args:
      data: a :class:`DataSource`, a pair of arrays ``(images, labels)``, a Hugging Face
        ``datasets.Dataset``, or a sequence of ``{"image", "label"}``.
      split: name for messages.
      class_names: names of the classes, if the data have none.

    Raises:
      UsageError: the data are none of these, or have the wrong shapes.
    """
    if isinstance(data, DataSource):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        return arrays_source(*data, class_names, split)
    if hasattr(data, "features") and hasattr(data, "cast_column"):
        return huggingface_source(data, split, class_names=class_names)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and len(data):
        return _record_source(data, split, class_names)
    raise UsageError(
        f"the data for {split} must be a pair (images, labels), a DataSource, a datasets.Dataset or"
        f" a sequence of records with image and label, not {type(data).__name__}"
    )


@dataclass(frozen=True)
class _Images(Sequence):
    """The images of records."""

    records: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Any:
        return self.records[index]["image"]


def _record_source(
    data: Sequence[Mapping[str, Any]], split: str, class_names: Sequence[str] | None
) -> DataSource:
    first = data[0]
    if not isinstance(first, Mapping) or not {"image", "label"} <= first.keys():
        raise UsageError(
            f"the records for {split} must be {{'image': …, 'label': …}}, not {first!r:.100}"
        )
    labels = np.array([data[index]["label"] for index in range(len(data))])
    columns, names = number_classes({"": labels}, f"the data for {split}", class_names)
    images, labels = _Images(data), columns[""]
    fingerprint = sample_fingerprint(images, labels)
    return make_source(GIVEN, split, images, labels, names, fingerprint=fingerprint)
