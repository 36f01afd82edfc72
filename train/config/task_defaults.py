"""Defaults of keys that depend on the task."""

from typing import Any

from train.config.keys import KEYS
from train.config.registries import MULTI_LABEL
from train.runtime.config_dict import ConfigDict

SEPARATOR = "|"  # of the classes of an image in a table


def default_value(name: str, task: str) -> Any:
    """Return the default of the key ``name`` with ``task``."""
    if name == "eval.metric":
        return "map" if task == MULTI_LABEL else "top1"
    return KEYS[name].default


def set_task_defaults(config: ConfigDict) -> None:
    """Set ``eval.metric`` and ``dataset.label_separator``, if they are empty, by ``task``."""
    several = config.task == MULTI_LABEL
    if not config.eval.metric:
        config.eval.metric = default_value("eval.metric", config.task)
    if several and config.dataset.name == "table" and not config.dataset.label_separator:
        config.dataset.label_separator = SEPARATOR
