"""What to do of a step whose loss or gradients are not finite, and a report of it."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from train import workdir
from train.errors import RunError
from train.files import write_atomically
from train.run import Run

REPORT = "nonfinite.json"


def check(run: Run, row: dict[str, Any], first: int | None, last: int) -> None:
    """Ends the run, by RunError, where the row of metrics up to step ``last`` is not finite.

    ``first`` is the first step, counted from 1, that was not. Where such steps are skipped only
    a row without any other ends the run.
    """
    loss = row["train/loss"]
    if run.task.skip_nonfinite and math.isfinite(loss):
        return
    if first is None and math.isfinite(loss):
        return
    first = last if first is None else first
    report(run, first, row)
    if run.task.skip_nonfinite:
        what = f"all {row['nonfinite']} steps up to {last} had to be skipped: none was finite"
    else:
        what = f"the training loss or its gradients became not finite in step {first}"
    raise RunError(f"{what}; {advice(run.path)}; {REPORT} has the images of step {first}")


def check_evaluation(run: Run, loss: float, step: int) -> None:
    """Ends the run, by RunError, where an evaluation's loss is not finite."""
    if not math.isfinite(loss):
        raise RunError(f"the evaluation loss became {loss} by step {step}; {advice(run.path)}")


def report(run: Run, step: int, row: dict[str, Any]) -> None:
    """Writes the images of ``step``, counted from 1, and the metrics to ``nonfinite.json``."""
    source = run.train_split.source
    records = [int(record) for record in run.order[step - 1]]
    found = {
        "step": step,
        "metrics": {name: str(value) for name, value in row.items()},
        "saved_steps": workdir.saved_steps(run.path),
        "images": [{"record": record, "name": source.name_of(record)} for record in records],
    }
    text = json.dumps(found, indent=1, ensure_ascii=False)
    try:
        write_atomically(os.path.join(run.path, REPORT), text + "\n")
    except OSError as error:
        raise RunError(f"cannot write {REPORT}: {error.strerror}") from error


def advice(path: str) -> str:
    """What is saved, and what often helps."""
    saved = workdir.saved_steps(path)
    kept = f"step {saved[-1]} is saved" if saved else "nothing was saved yet"
    return (
        f"{kept}. A lower schedule.learning_rate or a longer warm-up often helps, in another"
        " --workdir, which may begin with init_from this one"
        if saved
        else f"{kept}. A lower schedule.learning_rate or a longer warm-up often helps"
    )
