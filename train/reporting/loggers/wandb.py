"""Weights & Biases: configuration, metrics, sample images and confusion matrices."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.config.access import flatten
from train.config.registries import register_logger
from train.reporting.loggers.logger import Logger
from train.reporting.loggers.run_ids import read_id, write_id

PROJECT = "flax-resnet"
_SECONDS_TO_UPLOAD = 30  # at the end; the rest stays on disk


@register_logger("wandb")
class WandbLogger(Logger):
    """A run of Weights & Biases, which is continued when the run is resumed.

    Its files are in ``wandb/`` of the workdir. ``WANDB_MODE``, ``WANDB_PROJECT`` and the other
    variables of wandb are respected. The default is offline for users who are not logged in.
    """

    package = "wandb"

    def start(self, step: int) -> None:
        """Create the run or continue it."""
        import wandb  # takes seconds

        self._wandb = wandb
        wandb.setup(wandb.Settings(silent=True))  # or it prints into lines of the console
        mode = os.environ.get("WANDB_MODE")
        mode = mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
        saved = read_id(self.workdir, "wandb") if step else {}
        settings = wandb.Settings(
            console="off", silent=True, finish_timeout=_SECONDS_TO_UPLOAD, init_timeout=60
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.path.basename(os.path.abspath(self.workdir)),
            dir=self.workdir,
            id=saved.get("run_id"),
            resume="allow",
            mode=mode,
            config=flatten(self.config),
            reinit="create_new",  # several runs in one process have their own
            settings=settings,
        )
        write_id(self.workdir, "wandb", run_id=self._run.id)
        # The service's own step is a count of calls, and drops rows of steps that are repeated.
        self._run.define_metric("*", step_metric="step")

    def log(self, row: dict[str, float]) -> None:
        """Log a row of metrics."""
        self._run.log(row)

    def samples(self, images: np.ndarray, captions: Sequence[str]) -> None:
        """Log the images with their captions."""
        pairs = zip(images, captions, strict=True)
        self._run.log({"samples": [self._wandb.Image(i, caption=text) for i, text in pairs]})

    def confusion(self, matrix: np.ndarray, class_names: Sequence[str], step: int) -> None:
        """Log the matrix as a table."""
        rows = [[name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True)]
        columns = ["label", *class_names]
        self._run.log({"step": step, "eval/confusion": self._wandb.Table(columns, rows)})

    def finish(self, result: dict[str, Any]) -> None:
        """Log the result as the summary of the run."""
        self._run.summary.update({f"result/{name}": value for name, value in result.items()})

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()
