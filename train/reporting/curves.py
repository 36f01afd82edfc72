"""What the curves of a run are, however they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MOST_POINTS = 300  # of a line; more are replaced by means of neighbours


@dataclass(frozen=True)
class Series:
    """One line: ``points`` are (x, y); with ``dots`` each is marked. ``colour`` counts from 0."""

    label: str
    points: list[tuple[float, float]]
    colour: int = 0
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines that share their axes.

    Attributes:
      title: with the unit, where there is one.
      series: at least one, none of them empty.
      x: what the horizontal axis is.
      low, high: ends of the vertical axis; None follows the lines.
      percent: whether the values are shares.
    """

    title: str
    series: list[Series]
    x: str = "epoch"
    low: float | None = None
    high: float | None = None
    percent: bool = False


@dataclass(frozen=True)
class _Curve:
    title: str
    keys: dict[str, str] = field(default_factory=dict)  # label to key
    low: float | None = None
    high: float | None = None
    percent: bool = False


_CURVES = (
    _Curve("loss (nats)", {"train": "train/loss", "eval": "eval/loss"}),
    _Curve("top-1 accuracy", {"train": "train/top1", "eval": "eval/top1"}, 0, 1, True),
    _Curve("learning rate", {"learning rate": "learning_rate"}, 0),
    _Curve("images per second", {"images per second": "images_per_second"}, 0),
    _Curve("share of time waiting for input", {"waiting": "input_wait_fraction"}, 0, 1, True),
)
_COMPARED = (
    _Curve("evaluation: top-1 accuracy", {"": "eval/top1"}, None, None, True),
    _Curve("evaluation: loss (nats)", {"": "eval/loss"}),
    _Curve("training: top-1 accuracy", {"": "train/top1"}, None, None, True),
    _Curve("training: loss (nats)", {"": "train/loss"}),
    _Curve("learning rate", {"": "learning_rate"}, 0),
    _Curve("images per second", {"": "images_per_second"}, 0),
)


def of_run(rows: Sequence[dict[str, float]], x: str = "epoch") -> list[Panel]:
    """The panels of one run, of its rows of ``metrics.jsonl``; those without a line are left out.

    ``x`` is ``"epoch"`` or ``"step"``.
    """

    def lines(curve: _Curve) -> list[Series]:
        return [
            Series(label, points_of(rows, key, x), index, key.startswith("eval/"))
            for index, (label, key) in enumerate(curve.keys.items())
        ]

    return _panels(_CURVES, lines, x)


def of_runs(
    names: Sequence[str], colours: Sequence[int], rows: Sequence[Sequence[dict[str, float]]]
) -> list[Panel]:
    """Panels over epochs with a line a run, of its name and colour."""

    def lines(curve: _Curve) -> list[Series]:
        (key,) = curve.keys.values()
        return [
            Series(name, points_of(own, key, "epoch"), colour, key.startswith("eval/"))
            for name, colour, own in zip(names, colours, rows, strict=True)
        ]

    return _panels(_COMPARED, lines, "epoch")


def _panels(
    curves: Sequence[_Curve], lines: Callable[[_Curve], list[Series]], x: str
) -> list[Panel]:
    panels = []
    for curve in curves:
        series = [line for line in lines(curve) if line.points]
        if series:
            panels.append(Panel(curve.title, series, x, curve.low, curve.high, curve.percent))
    return panels


def points_of(
    rows: Sequence[dict[str, float]], key: str, x: str = "epoch"
) -> list[tuple[float, float]]:
    """The finite values of ``key`` over ``x``, at most :data:`MOST_POINTS`."""
    points = [
        (row[x], row[key])
        for row in rows
        if all(isinstance(row.get(name), (int, float)) for name in (x, key))
        and math.isfinite(row[key])
    ]
    together = -(-len(points) // MOST_POINTS)
    if together < 2:
        return points
    parts = (points[start : start + together] for start in range(0, len(points), together))
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
