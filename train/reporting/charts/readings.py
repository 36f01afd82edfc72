"""Values to read off a chart: some for hovering and for a table, all of them as CSV."""

import csv
import io
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from train.reporting.charts.axes import number
from train.reporting.charts.panel import Panel, Scatter, Series


@dataclass(frozen=True)
class Reading:
    """The values of all lines around a place.

    Attributes:
      x: the place.
      values: for each line its y there; None without a point near it.
    """

    x: float
    values: tuple[float | None, ...]


def readings(panel: Panel, most: int) -> list[Reading]:
    """Return the values of the lines at no more than ``most`` places.

    These are points of the line that has most of them. For other lines it is their last point
    since the place before, so every value is one of the chart.
    """
    lines = [_ordered(line) for line in panel.series]
    xs = sorted({x for x, _ in max(lines, key=len, default=[])})
    every = -(-len(xs) // most) or 1
    places = xs[::-1][::every][::-1]  # with the last one
    found, before = [], -math.inf
    for x in places:
        values = tuple(_last_in(line, before, x) for line in lines)
        found.append(Reading(x, values))
        before = x
    return found


def _ordered(line: Series) -> list[tuple[float, float]]:
    return sorted(line.points, key=lambda point: point[0])


def _last_in(line: Sequence[tuple[float, float]], after: float, until: float) -> float | None:
    """Return the last y of a line with x in ``(after, until]``."""
    index = bisect_left(line, (math.nextafter(until, math.inf),)) - 1
    return line[index][1] if index >= 0 and line[index][0] > after else None


def text(value: float | None, is_share: bool) -> str:
    """Return a value as text."""
    if value is None:
        return "–"
    return number(value, is_share) if math.isfinite(value) else "not finite"


def csv_text(panel: Panel) -> str:
    """Return all points of a panel as CSV.

    It has a column per line and for each end of a band; or a row per bar; or, of points, and of
    lines with several values at one x, such as ROC curves, a row per point with its name.
    """
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(_rows(panel))
    return buffer.getvalue()


def _names(scatter: Scatter) -> Sequence[str]:
    return scatter.names or [scatter.label] * len(scatter.points)


def _rows(panel: Panel) -> list[list[object]]:
    if panel.bars:
        head = [f"{panel.x} from", f"{panel.x} to", panel.bars.label]
        return [head, *map(list, panel.bars.bars)]
    lines = _lines(panel)
    if panel.scatter or any(len({x for x, _ in points}) < len(points) for _, points in lines):
        points = [
            [name, x, y]
            for part in panel.scatter
            for name, (x, y) in zip(_names(part), part.points, strict=True)
        ]
        points += [[name, x, y] for name, line in lines for x, y in line]
        return [["name", panel.x, panel.y or panel.title], *points]
    columns = [(name, dict(points)) for name, points in lines]
    xs = sorted({x for _, values in columns for x in values})
    head = [panel.x, *(name for name, _ in columns)]
    return [head, *([x, *(values.get(x, "") for _, values in columns)] for x in xs)]


def _lines(panel: Panel) -> list[tuple[str, Sequence[tuple[float, float]]]]:
    """Return the lines of a panel, and both ends of its bands, with their names."""
    lines = [(line.label or panel.title, line.points) for line in panel.series]
    for band in panel.bands:
        name = band.label or "band"
        lines.append((f"{name}, low", [(x, low) for x, low, _ in band.points]))
        lines.append((f"{name}, high", [(x, high) for x, _, high in band.points]))
    return lines
