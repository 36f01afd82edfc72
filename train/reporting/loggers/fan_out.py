"""The loggers of a run; each gets everything, and none can end, delay or change the run."""

import contextlib
import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.config.registries import LOGGERS
from train.engine.evaluation import Evaluated
from train.engine.predictions import output_names
from train.reporting.console import Console
from train.reporting.loggers import mlflow, tensorboard, wandb  # noqa: F401 (they register)
from train.reporting.loggers.guard import Guard
from train.reporting.task_reports import task_report
from train.runtime.config_dict import ConfigDict

MAX_CONFUSION_CLASSES = 200  # nobody can read a picture of more, and they wait in memory
SECONDS_TO_FINISH = 30.0  # for all loggers together
SECONDS_TO_STOP = 5.0  # if the run ends early, perhaps because the machine is taken away


class Loggers(contextlib.AbstractContextManager):
    """The loggers of ``config.log.to``; see :class:`train.reporting.loggers.logger.Logger`.

    Args:
      config: the configuration.
      workdir: the run's folder.
      start: the step from which the run continues.
      console: for warnings.
    """

    def __init__(self, config: ConfigDict, workdir: str, start: int, console: Console):
        self._guards = [
            Guard(name, LOGGERS[name], console, (copy.deepcopy(config), workdir))
            for name in dict.fromkeys(config.log.to)
        ]
        self._call("start", start)

    def log(self, row: dict[str, float]) -> None:
        """Log the finite numbers of a row of metrics."""
        self._call("log", {name: value for name, value in row.items() if math.isfinite(value)})

    def samples(self, images: np.ndarray, captions: Sequence[str]) -> None:
        """Log training images and their captions."""
        self._call("samples", images, captions)

    def evaluated(self, evaluated: Evaluated) -> None:
        """Log the confusion matrix of an evaluation, unless it has too many classes or no such."""
        size = evaluated.predictions.outputs
        if size > MAX_CONFUSION_CLASSES:
            return
        matrix = task_report(evaluated).confusion(evaluated)
        if matrix is not None:
            names = output_names(evaluated.loader.source.class_names, size)
            self._call("confusion", matrix, names, evaluated.result["step"])

    def finish(self, result: dict[str, Any]) -> None:
        """Log the result of a run that is complete."""
        self._call("finish", result)

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Close all loggers, and wait until they are done, but not long."""
        end = time.monotonic() + (SECONDS_TO_STOP if kind else SECONDS_TO_FINISH)
        for guard in self._guards:
            guard.begin_close()
        for guard in self._guards:
            guard.end_close(max(0.0, end - time.monotonic()))

    def _call(self, method: str, *arguments: Any) -> None:
        for guard in self._guards:
            # A copy for each, so that none can change what the run or another one uses.
            guard.call(method, *copy.deepcopy(arguments))
