"""What to do of a step whose loss or gradients are not finite, and a report of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

from flax_resnet.files import write_atomically
from train.engine.experiment import Experiment
from train.runtime import distributed
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.workdir import run_files
from train.workdir.metrics_log import to_json

REPORT = "nonfinite.json"
MOST_SKIPPED = 20  # in a row; more will hardly end by themselves


class NonFiniteGuard:
    """Looks at each row of metrics, and ends the run where it is not finite, by RunError.

    Where such steps are skipped, only a long row of them ends it. ``wait`` is called before, so
    that what is being saved is there and told.
    """

    def __init__(self, run: Experiment, wait: Callable[[], None]):
        self.run, self._wait = run, wait
        self._skipped = 0  # steps in a row, as far as the rows tell

    def check(self, row: dict[str, Any], first: int | None, last: int) -> None:
        """Looks at the row up to step ``last``; ``first``, from 1, was the first not finite."""
        if first is None:
            self._skipped = 0
            return
        if self.run.step_config.skip_nonfinite:
            alone = math.isnan(row["train/loss"])  # none of the row's steps was finite
            self._skipped = self._skipped + row["nonfinite"] if alone else 0
            if self._skipped < MOST_SKIPPED:
                return
            what = f"the last {self._skipped} steps up to {last} were skipped: none was finite"
        else:
            what = f"the training loss or its gradients became not finite in step {first}"
        self._wait()
        if distributed.is_primary():
            report(self.run, first, row)
        where = f"{REPORT} has the images of step {first}"
        raise RunError(f"{what}; {advice(self.run.path)}; {where}")


def check_evaluation(run: Experiment, loss: float, step: int) -> None:
    """Ends the run, by RunError, where an evaluation's loss is not finite."""
    if not math.isfinite(loss):
        raise RunError(f"the evaluation loss became {loss} by step {step}; {advice(run.path)}")


def report(run: Experiment, step: int, row: dict[str, Any]) -> None:
    """Writes the images of ``step``, counted from 1, and the metrics to ``nonfinite.json``."""
    source = run.train_loader.source
    records = [int(record) for record in run.order[step - 1]]
    found = {
        "step": step,
        "metrics": json.loads(to_json(row)),
        "saved_steps": run_files.saved_steps(run.path),
        "images": [{"record": record, "name": source.record_name(record)} for record in records],
    }
    text = json.dumps(found, indent=1, ensure_ascii=False)
    with writing(REPORT):
        write_atomically(os.path.join(run.path, REPORT), text + "\n")


def advice(path: str) -> str:
    """What is saved, and what often helps."""
    saved = run_files.saved_steps(path)
    kept = f"step {saved[-1]} is saved" if saved else "nothing was saved yet"
    return (
        f"{kept}. A lower schedule.learning_rate or a longer warm-up often helps, in another"
        " --workdir, which may begin with init_from this one"
        if saved
        else f"{kept}. A lower schedule.learning_rate or a longer warm-up often helps"
    )
