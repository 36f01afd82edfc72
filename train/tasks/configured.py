"""The task that the configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.config.registries import TASKS
from train.runtime.errors import UsageError
from train.runtime.own_code import build
from train.tasks import (  # noqa: F401 (they register their tasks)
    classification,
    multi_label,
    segmentation,
)
from train.tasks.base import BaseTask

if TYPE_CHECKING:
    from train.runtime.config_dict import ConfigDict


def make_task(config: ConfigDict, outputs: int) -> BaseTask:
    """Build the task, and check that it can be computed for ``outputs`` outputs of the head.

    Raises:
      UsageError: it cannot, or a key of the configuration does not fit it.
    """
    task = build(TASKS, config.task, config)
    if not isinstance(task, BaseTask):
        raise UsageError(
            f"the task {config.task!r} must return a train.tasks.task.Task, not an object of the"
            f" type {type(task).__name__}"
        )
    task.check(config, outputs)
    metrics = task.metric_names()
    if config.eval.metric not in ("", *metrics):
        raise UsageError(
            f"config.eval.metric={config.eval.metric!r} is no metric of task={config.task!r};"
            f" choose one of {', '.join(metrics)}"
        )
    is_own = TASKS.owner(config.task) is not None  # which may ignore eval.metrics, with a warning
    if unknown := [m for m in config.eval.metrics if m not in metrics and not is_own]:
        raise UsageError(
            f"config.eval.metrics has {unknown[0]!r}, which is no metric of task={config.task!r};"
            f" choose from {', '.join(metrics)}"
        )
    return task
