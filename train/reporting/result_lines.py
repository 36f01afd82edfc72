"""The last lines of a run: its result beside the baseline, and where to look next."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

from train.engine.evaluation import Evaluated
from train.reporting.metric_names import BASELINES, format_metric, title
from train.reporting.report.run_report import FILE
from train.reporting.task_reports import task_report
from train.runtime.cli import program
from train.runtime.formatting import pluralize


def result_lines(
    workdir: str,
    result: Mapping[str, Any],
    evaluated: Evaluated,
    intervals: Mapping[str, tuple[float, float]],
) -> list[str]:
    """Return the lines.

    Args:
      workdir: the run.
      result: of its last evaluation.
      evaluated: that evaluation.
      intervals: 95 % intervals of metrics, as far as known.
    """
    report = task_report(evaluated)
    names = dict.fromkeys((evaluated.config.eval.metric, report.leading))
    examples = f"{pluralize(result['examples'], 'image')} of {result['split']!r}"
    lines = []
    for name in names:
        if result.get(name) is None:
            continue
        text = f"{title(name)} {format_metric(name, result[name])} on {examples}"
        if name in intervals:
            low, high = (format_metric(name, end) for end in intervals[name])
            text += f" (95 % interval {low} to {high})"
        lines.append(("result", text))
        if (baseline := result.get(BASELINES.get(name, ""))) is not None:
            text = f"{format_metric(name, baseline)} by {report.describe_baseline(name, evaluated)}"
            lines.append(("baseline", text))
    place = f"--workdir {shlex.quote(workdir)}"
    lines += [
        ("report", os.path.join(workdir, FILE)),
        ("evaluate", f"{program('train.evaluate')} {place}"),
        ("predict", f"{program('train.predict')} {place} IMAGE"),
    ]
    return [f"{head + ':':<11}{text}" for head, text in lines]
