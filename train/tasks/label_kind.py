"""Whether the labels of the data are those that the task learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.runtime.errors import UsageError

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict


def check_labels(config: ConfigDict, kind: str, source: DataSource) -> None:
    """Raise UsageError unless the labels of the images are those that the task learns.

    Args:
      config: the configuration.
      kind: that of the labels that the task learns, as ``DataSource.label_kind``.
      source: the images.
    """
    if source.label_kind == kind:
        return
    where = f"the images of {source.name!r}"
    if source.label_kind == "mask":
        raise UsageError(
            f"{where} have masks, but config.task={config.task!r} learns classes of whole images;"
            " set config.task='segmentation'"
        )
    several = source.label_kind == "classes"
    if kind == "mask":
        raise UsageError(
            f"{where} have classes, but config.task={config.task!r} needs masks; see"
            " dataset.name='segmentation_folder'"
        )
    if several and (source.label_sets.sum(axis=1) == 1).all():
        raise UsageError(
            f"{where} have zeros and ones as labels, a single one each; one-hot labels become class"
            " numbers with labels.argmax(axis=1), or set config.task='multi_label'"
        )
    if several:
        raise UsageError(
            f"{where} may have several classes, but config.task={config.task!r} learns one class"
            " per image; set config.task='multi_label'"
        )
    raise UsageError(
        f"{where} have one class each, but config.task={config.task!r} needs images that may have"
        " several: a table (dataset.name='table') with labels such as 'cat|dog' or a column of"
        " zeros and ones per class, or arrays with labels (N, K) of zeros and ones"
    )
