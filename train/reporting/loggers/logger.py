"""The interface of loggers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.runtime.config_dict import ConfigDict


class Logger:
    """Receiver of what a run measures; a base class whose methods do nothing.

    A logger is registered by ``@register_logger("name")`` and selected by ``log.to``. It need not
    derive from this class, nor have all methods. Only process 0 has loggers. The first exception
    of a logger becomes a warning, and the run continues.

    Attributes:
      in_thread: whether the constructor and all methods run in a thread of the logger's own, so
        that they cannot delay the training steps; otherwise they run between two steps.
      package: the library that it needs, if the project has an extra for it.

    Args:
      config: a copy of the configuration.
      workdir: the run's folder.
    """

    in_thread = True
    package = ""

    def __init__(self, config: ConfigDict, workdir: str):
        self.config, self.workdir = config, workdir

    def start(self, step: int) -> None:
        """Begin, or continue a run after ``step`` steps.

        What was logged of later steps, by a process that died, will be repeated.
        """

    def log(self, row: dict[str, float]) -> None:
        """Log ``{"step": n, name: number, …}``: the finite numbers of a row of metrics.jsonl."""

    def samples(self, images: np.ndarray, captions: Sequence[str]) -> None:
        """Log some augmented training images, uint8 ``(N, H, W, 3)``, and their classes."""

    def confusion(self, matrix: np.ndarray, class_names: Sequence[str], step: int) -> None:
        """Log the confusion matrix of an evaluation, int ``(K, K)``: labels in rows.

        Not called for every evaluation, and not for more than 200 classes.
        """

    def finish(self, result: dict[str, Any]) -> None:
        """Log the result of the whole run, after ``report.html`` is written."""

    def close(self) -> None:
        """Free what the logger holds; called last, also if the run was interrupted."""
