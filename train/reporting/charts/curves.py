"""Learning curves and learning-rate schedules as charts."""

import math
from collections.abc import Sequence
from typing import Any

from train.reporting.charts.panel import Panel, Series

MAX_POINTS = 300  # per line; longer ones are averaged over neighboring points

# Title, keys of metrics.jsonl by label, and further fields of the panel.
_Curve = tuple[str, dict[str, str], dict[str, Any]]
_SHARE = {"low": 0, "high": 1, "percent": True}
_RUN: tuple[_Curve, ...] = (
    ("loss (nats)", {"train": "train/loss", "eval": "eval/loss"}, {}),
    ("top-1 accuracy", {"train": "train/top1", "eval": "eval/top1"}, _SHARE),
    ("mean average precision (mAP)", {"eval": "eval/map"}, _SHARE),
    ("learning rate", {"learning rate": "learning_rate"}, {"low": 0}),
    ("images per second", {"images per second": "images_per_second"}, {"low": 0}),
    ("share of time waiting for input", {"waiting": "input_wait_fraction"}, _SHARE),
)
_COMPARISON: tuple[_Curve, ...] = (
    ("evaluation top-1 accuracy", {"": "eval/top1"}, {"percent": True}),
    ("evaluation mAP", {"": "eval/map"}, {"percent": True}),
    ("evaluation loss (nats)", {"": "eval/loss"}, {}),
    ("training top-1 accuracy", {"": "train/top1"}, {"percent": True}),
    ("training loss (nats)", {"": "train/loss"}, {}),
    ("learning rate", {"": "learning_rate"}, {"low": 0}),
    ("images per second", {"": "images_per_second"}, {"low": 0}),
)


def run_panels(rows: Sequence[dict[str, float]], x: str = "epoch") -> list[Panel]:
    """Return the panels of one run; panels without any values are omitted.

    Args:
      rows: rows of ``metrics.jsonl``.
      x: ``"epoch"`` or ``"step"``.
    """
    return _panels(_RUN, [("", 0, rows)], x)


def comparison_panels(
    names: Sequence[str], colors: Sequence[int], rows: Sequence[Sequence[dict[str, float]]]
) -> list[Panel]:
    """Return panels over epochs with one line per run; names, colors and rows are per run."""
    return _panels(_COMPARISON, list(zip(names, colors, rows, strict=True)), "epoch")


def schedule_panel(epochs: Sequence[float], rates: Sequence[float]) -> Panel:
    """Return the learning rate over the epochs."""
    points = [(float(x), float(y)) for x, y in zip(epochs, rates, strict=True)]
    return Panel("learning rate", [Series("learning rate", points)], low=0)


def _panels(
    curves: Sequence[_Curve], runs: Sequence[tuple[str, int, Sequence[dict[str, float]]]], x: str
) -> list[Panel]:
    """Return panels of the curves of all ``runs``: their names, first colors and rows."""
    panels = []
    for title, keys, options in curves:
        series = [
            Series(name + label, points, color + index, dots=key.startswith("eval/"))
            for name, color, rows in runs
            for index, (label, key) in enumerate(keys.items())
            if (points := series_points(rows, key, x))
        ]
        if series:
            panels.append(Panel(title, series, x, **options))
    return panels


def series_points(
    rows: Sequence[dict[str, float]], key: str, x: str = "epoch"
) -> list[tuple[float, float]]:
    """Return the finite values of ``key`` over ``x``, averaged down to :data:`MAX_POINTS`."""
    points = [
        (row[x], row[key])
        for row in rows
        if all(isinstance(row.get(name), (int, float)) for name in (x, key))
        and math.isfinite(row[key])
    ]
    size = -(-len(points) // MAX_POINTS)
    if size < 2:
        return points
    chunks = (points[start : start + size] for start in range(0, len(points), size))
    return [(chunk[-1][0], sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]
