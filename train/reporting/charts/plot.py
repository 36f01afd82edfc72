"""A chart without its title and legend: axes, and marks between them."""

import math
from collections.abc import Iterator
from itertools import chain

from train.reporting.charts.axes import (
    LINEAR,
    LOG,
    LOG_1P,
    Axis,
    limits,
    log_limits,
)
from train.reporting.charts.elements import text
from train.reporting.charts.marks import marks
from train.reporting.charts.panel import Panel
from train.reporting.charts.smoothing import without_outliers

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34  # margins


def plot(panel: Panel) -> str:
    """Return the elements of a chart of ``WIDTH`` × ``HEIGHT``."""
    across, up = axes(panel)
    left, right, bottom, top = across.start, across.end, up.start, up.end
    parts = []
    for y in up.ticks():
        parts.append(f'<path class="grid" d="M{left} {up(y):.1f}H{right}"/>')
        parts.append(text(left - 5, up(y) + 4, up.text(y), "end"))
    parts += [text(across(x), bottom + 15, across.text(x)) for x in across.ticks()]
    parts += marks(panel, across, up)
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>')
    parts.append(text((left + right) / 2, HEIGHT - 4, panel.x))
    if panel.y:
        parts.append(text(11, (top + bottom) / 2, panel.y, is_upright=True))
    return "".join(parts)


def axes(panel: Panel) -> tuple[Axis, Axis]:
    """Return the horizontal and the vertical axis."""
    left = _LEFT + 16 * bool(panel.y)
    xs = list(_xs(panel))
    if panel.x_log:
        x_limits = log_limits(xs)
    elif panel.x_low is None:
        x_limits = limits(xs, None, panel.x_high, panel.x_percent)
    else:  # without room on the right
        x_limits = panel.x_low, max([*xs, panel.x_high or panel.x_low]) or panel.x_low + 1
    y_limits = limits(list(_ys(panel)), panel.low, panel.high, panel.percent)
    x_scale, y_scale = LOG if panel.x_log else LINEAR, LOG_1P if panel.log else LINEAR
    return (
        Axis(*x_limits, left, WIDTH - _RIGHT, panel.x_percent, x_scale),
        Axis(*y_limits, HEIGHT - _BOTTOM, _TOP, panel.percent, y_scale),
    )


def _xs(panel: Panel) -> Iterator[float]:
    for line in chain(panel.series, panel.scatter, panel.bands):
        yield from (x for x, *_ in line.points)
    yield from (
        x for left, right, _ in (panel.bars.bars if panel.bars else ()) for x in (left, right)
    )


def _ys(panel: Panel) -> Iterator[float]:
    """Yield the finite values that the vertical axis has to show."""
    for line in panel.series:
        cuts = panel.cut_outliers and not line.dots
        points = without_outliers(line.points) if cuts else line.points
        yield from (y for _, y in points if math.isfinite(y))
    others = [point[1:] for part in chain(panel.scatter, panel.bands) for point in part.points]
    others += [bar[2:] for bar in (panel.bars.bars if panel.bars else ())]
    yield from (y for values in others for y in values if math.isfinite(y))
