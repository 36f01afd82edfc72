"""Defaults of keys that depend on the task."""

from train.config.registries import MULTI_LABEL
from train.runtime.config_dict import ConfigDict

SEPARATOR = "|"  # of the classes of an image in a table


def set_task_defaults(config: ConfigDict) -> None:
    """Set ``eval.metric`` and ``dataset.label_separator``, if they are empty, by ``task``."""
    several = config.task == MULTI_LABEL
    if not config.eval.metric:
        config.eval.metric = "map" if several else "top1"
    if several and config.dataset.name == "table" and not config.dataset.label_separator:
        config.dataset.label_separator = SEPARATOR
