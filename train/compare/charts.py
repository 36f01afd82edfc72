"""The charts of a comparison: learning curves with bands over seeds, and the metric by key."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from train.compare.grouping import best, differing_keys, group_name
from train.compare.runs import RunSummary
from train.config.keys import KEYS
from train.config.registries import larger_is_better, parse_top_k
from train.reporting.charts.panel import Band, Panel, Scatter, Series
from train.reporting.charts.smoothing import MAX_POINTS, smooth, window_width
from train.reporting.metric_names import has_percent_axis, title
from train.runtime.formatting import join_names

_COLORED = 7  # lines; the others are gray
_GRAY = 7
_MAX_SCATTERS = 12
_MIN_POINTS = 3  # of a scatter; two are in the table
_DECADE = 10  # ratio of the largest to the smallest value from which on an axis is logarithmic
# Title, label of the vertical axis, and whether values are shares, by the key of metrics.jsonl.
_Curve = tuple[str, str, bool]
_CURVES: dict[str, _Curve] = {
    "eval/loss": ("Evaluation loss", "loss (nats)", False),
    "train/top1": ("Training top-1 accuracy", "top-1 accuracy", True),
    "train/pixel_accuracy": ("Training pixel accuracy", "pixel accuracy", True),
    "train/loss": ("Training loss", "loss (nats)", False),
    "learning_rate": ("Learning rate", "learning rate", False),
    "images_per_second": ("Images per second", "images/s", False),
}
_Points = list[tuple[float, float]]


@dataclass(frozen=True)
class _Line:
    """One run, or the finished seeds of a configuration, as one line."""

    label: str
    runs: Sequence[RunSummary]


def curve_panels(
    cohorts: Sequence[Sequence[RunSummary]], groups: Sequence[Sequence[RunSummary]]
) -> list[Panel]:
    """Return panels over epochs: a line per run, and one with a band per group of seeds.

    The first lines, those of the best runs, have colors of their own; further ones are gray.

    Args:
      cohorts: the runs, the best first, by metric and data.
      groups: runs that differ only in the seed.
    """
    runs = [run for cohort in cohorts for run in cohort]
    lines = [line for cohort in cohorts for line in _lines(cohort, groups)]
    curves = {f"eval/{run.metric}": _curve(run.metric) for run in runs}
    curves.setdefault("eval/top1", _curve("top1"))
    curves = curves | _CURVES
    panels = (_panel(key, curve, lines) for key, curve in curves.items())
    return [panel for panel in panels if panel.series]


def _curve(metric: str) -> _Curve:
    name = title(metric) + (" accuracy" if parse_top_k(metric) else "")
    return f"Evaluation {name}", name, has_percent_axis(metric)


def _lines(cohort: Sequence[RunSummary], groups: Sequence[Sequence[RunSummary]]) -> list[_Line]:
    """Return the lines of runs with one metric, the best first."""
    keys, members, seeds = differing_keys(cohort), set(map(id, cohort)), {}
    for group in groups:
        finished = [run for run in group if not run.remark and id(run) in members]
        if len(finished) > 1:
            name = group_name(finished, keys) or join_names([run.name for run in finished], 2)
            line = _Line(f"{name} ({len(finished)} seeds)", finished)
            seeds |= {id(run): line for run in finished}
    lines = [seeds.get(id(run)) or _Line(run.name, [run]) for run in cohort]
    return sorted({id(line): line for line in lines}.values(), key=_rank)


def _rank(line: _Line) -> tuple[bool, float]:
    """Return what is smaller for better lines of one metric; unfinished ones come last."""
    values = [run.value for run in line.runs if run.value is not None]
    sign = -1 if larger_is_better(line.runs[0].metric) else 1
    return not (values and line.runs[0].is_complete), sign * fmean(values or [0.0])


def _panel(key: str, curve: _Curve, lines: Sequence[_Line]) -> Panel:
    name, y, is_share = curve
    series, bands, dots = [], [], key.startswith("eval/")
    names = Counter(line.label for line in lines)
    colored = len(lines) if len(lines) <= _COLORED + 1 else _COLORED
    rest = f"{len(lines) - colored} others"
    for number, line in enumerate(lines):
        rows = [run.rows for run in line.runs]
        values = _reduced(_points(rows[0], key) if len(rows) == 1 else _over(rows, key))
        if not values:
            continue
        if key.startswith("train/"):
            values = _smoothed(values)
        points = [value[:2] for value in values]
        if number >= colored:
            series.append(Series(rest, points, _GRAY, pale=True))
            continue
        label = line.label
        if names[label] > 1:  # of other data, where the same keys differ
            label += f", {join_names([run.name for run in line.runs], 2)}"
        series.append(Series(label, points, number, dots=dots))
        if len(rows) > 1:
            bands.append(Band("", [(x, low, high) for x, _, low, high in values], number))
    low = 0 if key in ("learning_rate", "images_per_second") else None
    return Panel(name, series, y=y, low=low, percent=is_share, bands=bands)


def _points(rows: Sequence[dict[str, float]], key: str) -> _Points:
    """Return the finite values of a key over epochs."""
    return [
        (row["epoch"], row[key])
        for row in rows
        if row.get("epoch") is not None and row.get(key) is not None
    ]


def _over(rows: Sequence[Sequence[dict[str, float]]], key: str) -> list[tuple[float, ...]]:
    """Return epoch, mean, and mean ± sample standard deviation where two runs have values."""
    values: dict[float, list[float]] = {}
    for one in rows:
        for x, y in _points(one, key):
            values.setdefault(x, []).append(y)
    points = []
    for x, ys in sorted(values.items()):
        if len(ys) > 1:
            average = fmean(ys)
            spread = _deviation(ys, average)
            points.append((x, average, average - spread, average + spread))
    return points


def _deviation(values: Sequence[float], average: float) -> float:
    """Return the sample standard deviation; that of ``statistics`` takes long for many rows."""
    return math.sqrt(sum((value - average) ** 2 for value in values) / (len(values) - 1))


def _reduced(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return at most ``MAX_POINTS`` points: means of neighbors, at the epoch of the last one."""
    size = -(-len(points) // MAX_POINTS) or 1
    chunks = (points[start : start + size] for start in range(0, len(points), size))
    return [(part[-1][0], *map(fmean, zip(*(p[1:] for p in part), strict=True))) for part in chunks]


def _smoothed(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return moving averages over a window that fits the length of a line; short ones as is."""
    width = window_width([point[:2] for point in points])
    if width is None:
        return points
    columns = range(1, len(points[0]))
    averages = [smooth([(point[0], point[i]) for point in points], width) for i in columns]
    return [(part[0][0], *(y for _, y in part)) for part in zip(*averages, strict=True)]


def explanation(groups: Sequence[Sequence[RunSummary]]) -> str:
    """Return what the lines are."""
    text = ["Training metrics of many rows are smoothed, evaluations never."]
    if any(sum(not run.remark for run in group) > 1 for group in groups):
        text.append(
            "Lines of several seeds are their mean at epochs that two or more of them logged, with"
            " a band of ± one sample standard deviation."
        )
    if len(groups) > _COLORED + 1:
        text.append("The best ones are in color, all others in gray.")
    return " ".join(text)


def scatter_panels(cohorts: Sequence[Sequence[RunSummary]]) -> list[Panel]:
    """Return the metric over each numeric key that differs: one point per run."""
    panels = [
        _scatter(cohort, key, len(cohorts) > 1)
        for cohort in cohorts
        for key in differing_keys(cohort)
        if key != "seed"
    ]
    return [panel for panel in panels if panel is not None][:_MAX_SCATTERS]


def _scatter(cohort: Sequence[RunSummary], key: str, several: bool) -> Panel | None:
    """Return the panel of a key; None if it is not a number, or too few runs have results."""
    # Runs of older versions lack new keys, which had no effect on them: they have the default.
    values = {id(run): run.values.get(key, KEYS[key].default) for run in cohort}
    runs = [run for run in cohort if run.value is not None and _is_number(values[id(run)])]
    xs = {values[id(run)] for run in runs}
    if len(xs) < 2 or len(runs) < _MIN_POINTS:
        return None
    best_runs = list(map(id, best(cohort)))
    parts: dict[tuple[str, int], list[RunSummary]] = {}
    for run in runs:
        kind = ("run", 0) if run.is_complete else ("not finished", _GRAY)
        parts.setdefault(("best run", 1) if id(run) in best_runs else kind, []).append(run)
    scatter = [
        Scatter(
            label,
            [(float(values[id(run)]), run.value) for run in part],
            color,
            [f"{run.name}, seed {run.values.get('seed')}" for run in part],
        )
        for (label, color), part in parts.items()
    ]
    finished = [run for run in runs if run.is_complete]
    means = [
        (float(x), fmean(ys))
        for x in sorted({values[id(run)] for run in finished})
        if (ys := [run.value for run in finished if values[id(run)] == x])
    ]
    lines = []
    if 1 < len(means) < len(finished):
        lines = [Series("mean of the runs with the value", means, 0, pale=True)]
    name, y, is_share = _curve(cohort[0].metric)
    data = f" on {cohort[0].values.get('dataset.name')}" if several else ""
    is_log = min(xs) > 0 and max(xs) / min(xs) >= _DECADE
    return Panel(
        f"{name} by {key}{data}",
        lines,
        key + (" (logarithmic)" if is_log else ""),
        y=y,
        percent=is_share,
        scatter=scatter,
        x_log=is_log,
        x_low=None,
        last_values=False,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
