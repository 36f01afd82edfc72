"""Callbacks of a training that is started from Python."""

from typing import Any


class Callback:
    """Base class of callbacks; override what you need.

    Methods run in process 0, between steps, which they delay. An exception ends the run; its
    checkpoints stay, and the same call resumes it.
    """

    def on_step(self, step: int) -> None:
        """Do something after ``step`` steps, whose results may not have been computed yet."""

    def on_log(self, row: dict[str, float]) -> None:
        """Do something with a row of metrics, such as ``step`` and ``train/loss``."""

    def on_evaluation(self, step: int, evaluation: dict[str, Any]) -> None:
        """Do something with an evaluation, such as ``top1`` and ``loss``."""

    def on_end(self, evaluation: dict[str, Any]) -> None:
        """Do something with the evaluation of the final state."""
