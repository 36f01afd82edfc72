"""Marks of a chart: lines, areas, points and bars as elements of SVG."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from train.reporting.charts.axes import Axis, number
from train.reporting.charts.elements import text
from train.reporting.charts.palette import color, dashes
from train.reporting.charts.panel import Band, Bars, Panel, Scatter, Series

_MAX_DOTS = 30  # of a line
# Outlines around (0, 0), so that points differ without color, too.
_SHAPES = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "m-2.7-2.7h5.4v5.4h-5.4z",
    "m0-3.6l3.4 6h-6.8z",
    "m0-3.8l3.2 3.8-3.2 3.8-3.2-3.8z",
)
_CROSS = "m-3-3l6 6m0-6l-6 6"
_ARROW = "m-3.5 4.5l3.5-4.5 3.5 4.5z"


def marks(panel: Panel, across: Axis, up: Axis) -> list[str]:
    """Return the elements of everything that the panel shows, the rearmost first."""
    parts = [_band(band, across, up) for band in panel.bands]
    if panel.bars:
        parts += _bars(panel.bars, panel, across, up)
    for series in sorted(panel.series, key=lambda series: not series.pale):
        parts += _line(series, panel, across, up)
    for scatter in panel.scatter:
        parts += _scatter(scatter, panel, across, up)
    return parts


def shape(index: int, x: float, y: float, title: str = "", name: str = "dot") -> str:
    """Return the mark of a point."""
    title = f"<title>{escape(title)}</title>" if title else ""
    outline = f"M{x:.1f} {y:.1f}{_SHAPES[index % len(_SHAPES)]}"
    return f'<path class="{name}" style="fill:{color(index)}" d="{outline}">{title}</path>'


def stroke(line: Series) -> str:
    """Return the style of a line; pale ones have no dashes."""
    pattern = "none" if line.pale else dashes(line.color)
    return f"stroke:{color(line.color)};stroke-dasharray:{pattern}"


def _line(series: Series, panel: Panel, across: Axis, up: Axis) -> Iterator[str]:
    """Yield a line with gaps where it is not finite, and its marks."""
    points = series.points
    segments = [
        [f"{across(x):.1f} {up(y):.1f}" for x, y in group]
        for is_finite, group in groupby(points, lambda point: math.isfinite(point[1]))
        if is_finite
    ]
    # A point between two gaps is a line of no length, which its round ends make visible.
    path = "".join(f"M{'L'.join(places if places[1:] else places * 2)}" for places in segments)
    name, style = "line pale" if series.pale else "line", stroke(series)
    yield f'<path class="{name}" style="{style}" d="{path}"/>' if path else ""
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) == 1 or series.dots:
        every = -(-len(finite) // _MAX_DOTS)
        for x, y in finite[::-1][:: every or 1]:
            yield shape(series.color, across(x), up(y), _title(series.label, panel, x, y))
    yield from _off_axis(series, panel, across, up)


def _off_axis(series: Series, panel: Panel, across: Axis, up: Axis) -> Iterator[str]:
    """Yield a mark at the edge for values that are not finite, or cut off, one for each group."""
    edge = {True: min(up.start, up.end), False: max(up.start, up.end)}
    groups = groupby(
        series.points, lambda p: (not math.isfinite(p[1]), p[1] > up.high, p[1] < up.low)
    )
    for (is_nan, is_above, is_below), group in groups:
        group = list(group)
        if is_nan:
            x = group[len(group) // 2][0]
            title = f"{series.label}, {panel.x} {number(group[0][0])}: not finite"
            yield _edge_mark("cross", series.color, across(x), edge[True] + 4, _CROSS, title)
        elif is_above or is_below:
            x, y = max(group, key=lambda point: abs(point[1]))
            title = _title(series.label, panel, x, y)
            outline = _ARROW if is_above else _ARROW.replace("4.5", "-4.5")
            yield _edge_mark("dot", series.color, across(x), edge[is_above], outline, title)


def _edge_mark(name: str, index: int, x: float, y: float, outline: str, title: str) -> str:
    attribute = "stroke" if name == "cross" else "fill"
    return (
        f'<path class="{name}" style="{attribute}:{color(index)}" d="M{x:.1f} {y:.1f}{outline}">'
        f"<title>{escape(title)}</title></path>"
    )


def _band(band: Band, across: Axis, up: Axis) -> str:
    """Return an area."""
    points = [point for point in band.points if all(map(math.isfinite, point))]
    high = [f"{across(x):.1f} {up(y):.1f}" for x, _, y in points]
    low = [f"{across(x):.1f} {up(y):.1f}" for x, y, _ in reversed(points)]
    if not points:
        return ""
    outline = f"M{'L'.join(high + low)}z"
    return f'<path class="band" style="fill:{color(band.color)}" d="{outline}"/>'


def _bars(bars: Bars, panel: Panel, across: Axis, up: Axis) -> Iterator[str]:
    for start, end, y in bars.bars:
        title = f"{bars.label}, {panel.x} {across.text(start)} to {across.text(end)}: {up.text(y)}"
        yield (
            f'<rect class="bar" style="fill:{color(bars.color)}" x="{across(start) + 0.5:.1f}"'
            f' y="{up(y):.1f}" width="{max(across(end) - across(start) - 1, 0.1):.1f}"'
            f' height="{up(up.low) - up(y):.1f}"><title>{escape(title)}</title></rect>'
        )
        if bars.numbers and y:
            yield _bar_number(across(start), across(end), up(y), up.text(y))


def _bar_number(left: float, right: float, top: float, content: str) -> str:
    """Return the number above a bar, upright if the bar is narrow; the panel has room for it."""
    middle = (left + right) / 2
    if 6.5 * len(content) > right - left:
        return text(middle + 4, top - 4, content, "start", is_upright=True)
    return text(middle, top - 4, content)


def _scatter(scatter: Scatter, panel: Panel, across: Axis, up: Axis) -> Iterator[str]:
    names: Sequence[str] = scatter.names or [scatter.label] * len(scatter.points)
    for name, (x, y) in zip(names, scatter.points, strict=True):
        yield shape(scatter.color, across(x), up(y), _title(name, panel, x, y))


def _title(label: str, panel: Panel, x: float, y: float) -> str:
    place = f"{panel.x} {number(x, panel.x_percent)}"
    return f"{label}, {place}: {number(y, panel.percent)}"
