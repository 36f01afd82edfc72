"""Handling of steps whose loss or gradients are not finite, with a report on the first one."""

import json
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from flax_resnet.files import write_atomically
from train.engine.experiment import Experiment
from train.engine.step import TrainState
from train.runtime import distributed
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.workdir import run_files
from train.workdir.metrics_log import to_json

REPORT = "nonfinite.json"
MAX_SKIPPED = 20  # consecutive skipped steps; a longer sequence rarely ends


class NonFiniteGuard:
    """Check that ends the run if a row of metrics is not finite.

    If such steps are skipped, only ``MAX_SKIPPED`` consecutive ones end it.

    Args:
      experiment: the run.
      wait_saved: called first, so that a checkpoint being saved is complete.
    """

    def __init__(self, experiment: Experiment, wait_saved: Callable[[], None]):
        self._experiment, self._wait_saved = experiment, wait_saved
        self._skipped = 0  # consecutive steps

    def check(self, row: dict[str, Any], first: int | None) -> None:
        """Check a row of metrics.

        Args:
          row: metrics of the steps up to ``row["step"]``.
          first: first of these steps that was not finite, counted from 1; None if all were.

        Raises:
          RunError: the run must end.
        """
        if first is None:
            self._skipped = 0
            return
        if self._experiment.step_config.skip_nonfinite:
            all_skipped = math.isnan(row["train/loss"])
            self._skipped = self._skipped + row["nonfinite"] if all_skipped else 0
            if self._skipped < MAX_SKIPPED:
                return
            problem = (
                f"the last {self._skipped} steps up to {row['step']} were skipped: none was finite"
            )
        else:
            problem = f"the training loss or its gradients became not finite in step {first}"
        self._wait_saved()
        if distributed.is_primary():
            write_report(self._experiment, first, row)
        advice = recovery_advice(self._experiment.workdir)
        raise RunError(f"{problem}; {advice}; {REPORT} lists the images of step {first}")

    def check_state(self, state: TrainState) -> None:
        """Raise RunError unless all arrays of a state on the host are finite."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if not np.isfinite(leaf).all():
                self._wait_saved()
                raise RunError(
                    f"{jax.tree_util.keystr(path)} is not finite after step {state.step};"
                    f" {recovery_advice(self._experiment.workdir)}"
                )


def check_evaluation(experiment: Experiment, loss: float, step: int) -> None:
    """Raise RunError if the loss of the evaluation after ``step`` steps is not finite."""
    if not math.isfinite(loss):
        advice = recovery_advice(experiment.workdir)
        raise RunError(f"the evaluation loss became {loss} by step {step}; {advice}")


def write_report(experiment: Experiment, step: int, row: dict[str, Any]) -> None:
    """Write the images of ``step``, counted from 1, and the metrics to ``nonfinite.json``."""
    source = experiment.train_loader.source
    records = [int(record) for record in experiment.sampler[step - 1]]
    report = {
        "step": step,
        "metrics": json.loads(to_json(row)),
        "saved_steps": run_files.saved_steps(experiment.workdir),
        "images": [{"record": record, "name": source.record_name(record)} for record in records],
    }
    text = json.dumps(report, indent=1)
    with writing(REPORT):
        write_atomically(os.path.join(experiment.workdir, REPORT), text + "\n")


def recovery_advice(workdir: str) -> str:
    """Return which step is saved, and what often helps."""
    advice = "A lower schedule.learning_rate or a longer warm-up often helps"
    if saved := run_files.saved_steps(workdir):
        return (
            f"step {saved[-1]} is saved. {advice}, in another --workdir, which may start from this"
            " one (init_from)"
        )
    return f"nothing was saved yet. {advice}"
