"""Learning curves and learning-rate schedules as charts."""

import math
from collections.abc import Sequence
from typing import Any

from train.reporting.charts.axes import number
from train.reporting.charts.panel import Panel, Series
from train.reporting.charts.smoothing import reduce_points, smooth, window_width, without_outliers

_MAX_EVALUATIONS = 2000  # shown one by one

# Title, keys of metrics.jsonl by label, and further fields of the panel.
_Curve = tuple[str, dict[str, str], dict[str, Any]]
_Row = dict[str, float | None]
_NATS = {"y": "loss (nats)", "cut_outliers": True}
_ACCURACY = {"y": "top-1 accuracy", "percent": True}
_MAP = {"y": "mAP", "percent": True}
_MIOU = {"y": "mIoU", "percent": True}
_RATE = {"y": "learning rate", "low": 0}
_SPEED = {"y": "images/s", "low": 0}
_LEARNING: tuple[_Curve, ...] = (
    ("Loss", {"training": "train/loss", "evaluation": "eval/loss"}, _NATS),
    ("Top-1 accuracy", {"training": "train/top1", "evaluation": "eval/top1"}, _ACCURACY),
    ("Mean average precision (mAP)", {"evaluation": "eval/map"}, _MAP),
    ("Mean intersection over union (mIoU)", {"evaluation": "eval/miou"}, _MIOU),
    (
        "Pixel accuracy",
        {"training": "train/pixel_accuracy", "evaluation": "eval/pixel_accuracy"},
        {"y": "pixel accuracy", "percent": True},
    ),
    ("Learning rate", {"learning rate": "learning_rate"}, _RATE),
)
_TIME: tuple[_Curve, ...] = (
    ("Images per second", {"images per second": "images_per_second"}, _SPEED),
    (
        "Waiting for input",
        {"waiting": "input_wait_fraction"},
        {"y": "share of time", "low": 0, "percent": True},
    ),
)


def run_panels(rows: Sequence[_Row], conditions: str = "") -> list[Panel]:
    """Return what one run learned; panels without any values are omitted.

    Training metrics are pale, with a smoothed line over them; evaluations are never smoothed.

    Args:
      rows: rows of ``metrics.jsonl``.
      conditions: what makes the training metrics others than those of an evaluation, such as
        ``"with label smoothing"``.
    """
    return _panels(_LEARNING, rows, conditions)


def evaluation_panel(rows: Sequence[_Row], key: str, name: str, is_share: bool) -> Panel | None:
    """Return a metric of the evaluations, such as ``"eval/top5"``; None without any value."""
    options = {"y": name, "percent": is_share}
    panels = _panels([(name[:1].upper() + name[1:], {"evaluation": key}, options)], rows, "")
    return panels[0] if panels else None


def time_panels(rows: Sequence[_Row]) -> list[Panel]:
    """Return the speed of a run and its waiting for input."""
    return _panels(_TIME, rows, "")


def schedule_panel(epochs: Sequence[float], rates: Sequence[float]) -> Panel:
    """Return the learning rate over the epochs."""
    points = [(float(x), float(y)) for x, y in zip(epochs, rates, strict=True)]
    return Panel("Learning rate", [Series("learning rate", points)], **_RATE)


def _points(rows: Sequence[_Row], key: str, x: str) -> list[tuple[float, float]]:
    points = [
        (row[x], math.nan if row[key] is None else row[key])
        for row in rows
        if key in row and row.get(x) is not None
    ]
    return points if any(math.isfinite(y) for _, y in points) else []


def _panels(curves: Sequence[_Curve], rows: Sequence[_Row], conditions: str) -> list[Panel]:
    # Only files of other programs have no epochs.
    x = "epoch" if all(row.get("epoch") is not None for row in rows) else "step"
    panels = [_panel(*curve, rows, x, conditions) for curve in curves]
    return [panel for panel in panels if panel.series]


def _panel(
    title: str,
    keys: dict[str, str],
    options: dict[str, Any],
    rows: Sequence[_Row],
    x: str,
    conditions: str,
) -> Panel:
    lines, note = [], ""
    for color, (label, key) in enumerate(keys.items()):
        points = _points(rows, key, x)
        if not points:
            continue
        if key.startswith("eval/"):
            shown, size = reduce_points(points, _MAX_EVALUATIONS)
            lines.append(Series(label + _means(size), shown, color, dots=True))
        elif key == "learning_rate":
            lines.append(Series(label, reduce_points(points)[0], color))
        else:
            lines += _smoothed(label, points, color, x)
            if label == "training" and conditions:
                note = f"Training is measured {conditions}, evaluation without."
    return Panel(title, lines, x, note=note, **options)


def _smoothed(
    label: str, points: Sequence[tuple[float, float]], color: int, x: str
) -> list[Series]:
    """Return a pale line and a smoothed one; if there are few points, only the line itself."""
    shown, size = reduce_points(points)
    width = window_width(shown)
    if width is None:
        return [Series(label + _means(size), shown, color)]
    unit = x if width == 1 else f"{x}s"
    smoothed = smooth(without_outliers(shown), width)
    return [
        Series(label + (_means(size) or ", as logged"), shown, color, pale=True),
        Series(f"{label}, smoothed over {number(width)} {unit}", smoothed, color),
    ]


def _means(size: int) -> str:
    return f", means of {size:,} logged values" if size > 1 else ""
