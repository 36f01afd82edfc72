"""Values that a chart shows under the pointer, by CSS only."""

import math
from collections.abc import Iterator
from itertools import pairwise

from flax_resnet.text import truncate
from train.reporting.charts.axes import Axis
from train.reporting.charts.elements import text, text_length
from train.reporting.charts.marks import shape
from train.reporting.charts.panel import Panel
from train.reporting.charts.readings import Reading, readings
from train.reporting.charts.readings import text as value_text

_MAX_AREAS = 100  # of a chart
_MAX_VALUES = 800  # of a chart; with many lines, there are fewer areas
_MAX_LINES = 10  # of a tip
_LINE_HEIGHT, _PADDING = 14, 6


def hover_areas(panel: Panel, across: Axis, up: Axis) -> str:
    """Return areas side by side over the lines of a chart, each with the values there.

    Nothing beside bars, and for points without lines, which have titles of their own.
    """
    if panel.bars or panel.scatter or not panel.series:
        return ""
    most = max(10, min(_MAX_AREAS, _MAX_VALUES // len(panel.series)))
    return "".join(_areas(panel, readings(panel, most), across, up))


def _areas(panel: Panel, shown: list[Reading], across: Axis, up: Axis) -> Iterator[str]:
    places = [across(reading.x) for reading in shown]
    edges = [across.start, *((a + b) / 2 for a, b in pairwise(places))]
    edges.append(across.end)
    for i, reading in enumerate(shown):
        width = max(edges[i + 1] - edges[i], 0.1)
        outline = f"M{edges[i]:.1f} {up.end}h{width:.1f}V{up.start}h-{width:.1f}z"
        tip = _tip(panel, reading, places[i], across, up)
        yield f'<g class="hit"><path d="{outline}"/><g class="tip">{tip}</g></g>'


def _tip(panel: Panel, reading: Reading, x: float, across: Axis, up: Axis) -> str:
    """Return the place, a mark on each line, and a box with the values."""
    parts = [f'<path class="guide" d="M{x:.1f} {up.end}V{up.start}"/>']
    lines = [f"{panel.x} {across.text(reading.x)}"]
    for series, value in zip(panel.series, reading.values, strict=True):
        if value is None:
            continue
        if math.isfinite(value) and not series.pale:
            parts.append(shape(series.color, x, up(value)))
        lines.append(f"{truncate(series.label, 34)} {value_text(value, panel.percent)}".strip())
    if len(lines) > _MAX_LINES + 1:
        lines = [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES} more"]
    width = max(map(text_length, lines)) + 2 * _PADDING
    height = _LINE_HEIGHT * len(lines) + _PADDING
    # On the side with more room, but never outside the chart.
    is_left = x > (across.start + across.end) / 2
    left = x - 8 - width if is_left else x + 8
    left = min(max(left, 0), across.end + 10 - width)
    parts.append(
        f'<rect class="box" x="{left:.1f}" y="{up.end}" width="{width:.1f}" height="{height}"'
        ' rx="4"/>'
    )
    for i, line in enumerate(lines):
        parts.append(text(left + _PADDING, up.end + _LINE_HEIGHT * (i + 1) - 1, line, "start"))
    return "".join(parts)
