"""Whether the labels of the data are those that the task learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.runtime.errors import UsageError

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict


def check_labels(config: ConfigDict, several_labels: bool, source: DataSource) -> None:
    """Raise UsageError unless images have as many classes as the task can learn.

    Args:
      config: the configuration.
      several_labels: whether the task learns any number of classes per image.
      source: the images.
    """
    several = source.label_sets is not None
    if several == several_labels:
        return
    where = f"the images of {source.name!r}"
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
