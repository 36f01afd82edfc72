"""Line charts as SVG, for pages: they take the page's colours, light or dark, and any width."""

from __future__ import annotations

import math
from html import escape

from train.reporting.curves import Panel, Series

COLOURS = 8  # that the page has: --c0 … --c7; further lines are dashed
_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34  # margins
_MOST_DOTS = 120


def figure(panel: Panel, values: bool = True) -> str:
    """A ``<figure>``: title, chart, and a legend, with each line's last value where wanted."""
    legend = "".join(
        f'<li><span class="swatch" style="{_stroke(line).replace("stroke:", "border-color:")}">'
        f"</span>{escape(line.label)}"
        + (f" <b>{shown(line.points[-1][1], panel.percent)}</b>" if values else "")
        + "</li>"
        for line in panel.series
    )
    return (
        f"<figure><figcaption>{escape(panel.title)}</figcaption>{chart(panel)}"
        f'<ul class="legend">{legend}</ul></figure>'
    )


def chart(panel: Panel) -> str:
    """The ``<svg>`` of a panel."""
    points = [point for line in panel.series for point in line.points]
    left, right = 0.0, max(x for x, _ in points) or 1.0  # of epochs, steps and shares
    low, high = _ends([y for _, y in points], panel.low, panel.high)

    def across(x: float) -> float:
        return _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for y in ticks(low, high):
        parts.append(
            f'<path class="grid" d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 5}" y="{up(y) + 4:.1f}" text-anchor="end">'
            f"{shown(y, panel.percent)}</text>"
        )
    for x in ticks(left, right):
        parts.append(
            f'<text x="{across(x):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">'
            f"{shown(x)}</text>"
        )
    parts.append(
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"{escape(panel.x)}</text>"
    )
    for line in panel.series:
        style = _stroke(line)
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line.points)
        parts.append(f'<path class="line" style="{style}" d="M{path}"/>')
        if len(line.points) == 1 or (line.dots and len(line.points) <= _MOST_DOTS):
            parts += [
                f'<circle style="{style};fill:var(--c{line.colour % COLOURS})"'
                f' cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.4"><title>{escape(line.label)},'
                f" {escape(panel.x)} {shown(x)}: {shown(y, panel.percent)}</title></circle>"
                for x, y in line.points
            ]
    told = ", ".join(
        f"{line.label} from {shown(line.points[0][1], panel.percent)}"
        f" to {shown(line.points[-1][1], panel.percent)}"
        for line in panel.series
    )
    label = escape(f"{panel.title} over {panel.x}: {told}", quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round numbers between two: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def shown(value: float, percent: bool = False) -> str:
    """A number for people: ``1.25``, ``12,500``, ``97.5 %``."""
    if percent:
        return f"{100 * value:.4g} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ends(values: list[float], low: float | None, high: float | None) -> tuple[float, float]:
    """An axis around the values, of some length in any case."""
    found_low, found_high = min(values), max(values)
    room = 0.05 * (found_high - found_low) or 0.05 * abs(found_high) or 1.0
    if low is None:
        low = 0.0 if 0 <= found_low <= room else found_low - room
    if high is None:
        high = found_high + room
    return min(low, found_low), max(high, found_high)


def _stroke(line: Series) -> str:
    dashes = line.colour // COLOURS
    dashed = f";stroke-dasharray:{2 + 3 * dashes} 3" if dashes else ""
    return f"stroke:var(--c{line.colour % COLOURS}){dashed}"
