"""Defaults of keys that depend on the task."""

from __future__ import annotations

from typing import Any

from train.config.keys import KEYS
from train.config.registries import BEST_METRICS, MULTI_LABEL, TASKS
from train.data.label_sets import SEPARATOR
from train.runtime.config_dict import ConfigDict
from train.runtime.own_code import build


def learns_several_labels(config: ConfigDict) -> bool:
    """Return whether the task of a configuration learns any number of classes per image."""
    return config.task == MULTI_LABEL or bool(
        getattr(_own_task(config), "several_labels", False)  # make_task checks its type
    )


def default_value(name: str, task: str) -> Any:
    """Return the default of the key ``name`` with ``task``, as far as it is known by its name."""
    if name == "eval.metric":
        return BEST_METRICS.get(task, "top1")
    return KEYS[name].default


def set_task_defaults(config: ConfigDict) -> None:
    """Set ``eval.metric`` and ``dataset.label_separator``, if they are empty, by ``task``."""
    if not config.eval.metric:
        default = default_value("eval.metric", config.task)
        # make_task checks the type of an own task.
        config.eval.metric = getattr(_own_task(config), "default_metric", default)
    set_label_separator(config)


def set_label_separator(config: ConfigDict) -> None:
    """Set ``dataset.label_separator``, if it is empty, by ``task``."""
    if config.dataset.name == "table" and not config.dataset.label_separator:
        config.dataset.label_separator = SEPARATOR if learns_several_labels(config) else ""


def _own_task(config: ConfigDict) -> Any:
    """Return the task of a recipe; None for those of the project."""
    return None if TASKS.owner(config.task) is None else build(TASKS, config.task, config)
