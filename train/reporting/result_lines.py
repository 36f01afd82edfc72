"""The last lines of a run: its result beside the baseline, and where to look next."""

import os
import shlex
from collections.abc import Mapping
from typing import Any

from train.engine.evaluation import Evaluated
from train.reporting.metric_names import BASELINES, format_metric, title
from train.reporting.report.run_report import FILE
from train.runtime.cli import program
from train.runtime.columns import cut
from train.runtime.formatting import pluralize

_MAX_NAME = 24  # columns of a class name


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
    several = evaluated.predictions.several_labels
    names = dict.fromkeys((evaluated.config.eval.metric, "map" if several else "top1"))
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
            text = f"{format_metric(name, baseline)} by {_baseline(name, evaluated)}"
            lines.append(("baseline", text))
    place = f"--workdir {shlex.quote(workdir)}"
    lines += [
        ("report", os.path.join(workdir, FILE)),
        ("evaluate", f"{program('train.evaluate')} {place}"),
        ("predict", f"{program('train.predict')} {place} IMAGE"),
    ]
    return [f"{head + ':':<11}{text}" for head, text in lines]


def _baseline(name: str, evaluated: Evaluated) -> str:
    """Return what reaches the baseline of a metric."""
    if name == "map":
        return "a ranking at random"
    source = evaluated.loader.source
    if evaluated.predictions.several_labels or not source.has_cheap_labels:
        return "always answering the most frequent class"
    largest = source.class_names[int(source.class_counts().argmax())]
    return f"always answering {cut(largest, _MAX_NAME)!r}"
