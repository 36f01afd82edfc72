"""Charts as SVG: in a page with its light or dark colors, and as files with the light ones."""

import math
from collections.abc import Sequence
from html import escape

from flax_resnet.text import truncate
from train.reporting.charts.axes import limits, number, ticks
from train.reporting.charts.elements import file_text, text
from train.reporting.charts.palette import color as color_of
from train.reporting.charts.panel import Panel

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34  # margins
_COLUMNS = 3  # charts beside each other in a file
_MAX_DOTS = 120


def figure(panel: Panel) -> str:
    """Return an HTML ``<figure>``: title, chart, and a legend with the last value of each line."""
    legend = "".join(
        f'<li><span class="swatch" style="border-color:{color}"></span>{escape(label)}'
        + (f" <b>{value}</b></li>" if value else "</li>")
        for color, label, value in _legend(panel)
    )
    ranges = ", ".join(
        f"{line.label} from {number(line.points[0][1], panel.percent)}"
        f" to {number(line.points[-1][1], panel.percent)}"
        for line in panel.series
    )
    label = escape(f"{panel.title} over {panel.x}: {ranges}".removesuffix(": "))
    return (
        f"<figure><figcaption>{escape(panel.title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f'{_drawing(panel)}</svg><ul class="legend">{legend}</ul></figure>'
    )


def document(panels: Sequence[Panel]) -> str:
    """Return the text of an SVG file with the charts, titles and legends of all panels."""
    parts, top, wide = [], 0, _WIDTH + 20
    for start in range(0, len(panels), _COLUMNS):
        row = panels[start : start + _COLUMNS]
        for column, panel in enumerate(row):
            parts.append(
                f'<g transform="translate({column * wide} {top})">'
                f'<text class="title" x="{_LEFT}" y="16">{escape(panel.title)}</text>'
                f'<g transform="translate(0 22)">{_drawing(panel)}</g>'
            )
            for y, (color, label, value) in enumerate(_legend(panel)):
                y = _HEIGHT + 38 + 16 * y
                parts.append(f'<path class="line" style="stroke:{color}" d="M{_LEFT} {y - 4}h18"/>')
                parts.append(text(_LEFT + 24, y, f"{truncate(label, 45)} {value}", "start"))
            parts.append("</g>")
        top += _HEIGHT + 44 + 16 * max(len(_legend(panel)) for panel in row)
    return file_text("".join(parts), max(1, min(_COLUMNS, len(panels))) * wide, top or _HEIGHT)


def _drawing(panel: Panel) -> str:
    """Return the elements of a chart of ``_WIDTH`` × ``_HEIGHT``."""
    bars = panel.bars.bars if panel.bars else []
    values = [y for line in panel.series for _, y in line.points] + [y for *_, y in bars]
    right = max([x for line in panel.series for x, _ in line.points] + [x for _, x, _ in bars])
    right = right or 1.0
    low, high = limits(values, panel.low, panel.high)
    margin, bottom = _LEFT + 16 * bool(panel.y), _HEIGHT - _BOTTOM

    def scale(y: float) -> float:
        return math.log10(1 + y) if panel.log else y

    def across(x: float) -> float:  # epochs, steps and shares start at 0
        return margin + x / right * (_WIDTH - margin - _RIGHT)

    def up(y: float) -> float:
        return bottom - (scale(y) - scale(low)) / (scale(high) - scale(low)) * (bottom - _TOP)

    parts = []
    powers = [0.0, *(10.0**n for n in range(math.floor(math.log10(max(1, high))) + 1))]
    for y in powers if panel.log else ticks(low, high):
        parts.append(f'<path class="grid" d="M{margin} {up(y):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(text(margin - 5, up(y) + 4, number(y, panel.percent), "end"))
    parts += [text(across(x), bottom + 15, number(x)) for x in ticks(0, right)]
    if panel.y:
        parts.append(text(11, (_TOP + bottom) / 2, panel.y, is_upright=True))
    for start, end, y in bars:
        parts.append(
            f'<rect class="bar" style="fill:{color_of(panel.bars.color)}"'
            f' x="{across(start) + 0.5:.1f}" y="{up(y):.1f}"'
            f' width="{across(end) - across(start) - 1:.1f}" height="{up(low) - up(y):.1f}">'
            f"<title>{escape(panel.bars.label)}, {escape(panel.x)} {number(start)} to"
            f" {number(end)}: {number(y, panel.percent)}</title></rect>"
        )
        if panel.bars.numbers and y:
            parts.append(_bar_number(across(start), across(end), up(y), number(y, panel.percent)))
    parts.append(f'<path class="axis" d="M{margin} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>')
    parts.append(text((margin + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, panel.x))
    for line in panel.series:
        color = color_of(line.color)
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line.points)
        parts.append(f'<path class="line" style="stroke:{color}" d="M{path}"/>')
        if len(line.points) == 1 or (line.dots and len(line.points) <= _MAX_DOTS):
            parts += [
                f'<circle style="fill:{color}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3">'
                f"<title>{escape(line.label)}, {escape(panel.x)} {number(x)}:"
                f" {number(y, panel.percent)}</title></circle>"
                for x, y in line.points
            ]
    return "".join(parts)


def _bar_number(left: float, right: float, top: float, content: str) -> str:
    """Return the number above a bar, upright if the bar is narrow; the panel has room for it."""
    middle = (left + right) / 2
    if 6.5 * len(content) > right - left:
        return text(middle + 4, top - 4, content, "start", is_upright=True)
    return text(middle, top - 4, content)


def _legend(panel: Panel) -> list[tuple[str, str, str]]:
    """Return color, label and last value of all lines; no values beside bars."""
    items = []
    for line in panel.series:
        has_value = panel.last_values and not panel.bars
        value = number(line.points[-1][1], panel.percent) if has_value else ""
        items.append((color_of(line.color), line.label, value))
    return items + ([(color_of(panel.bars.color), panel.bars.label, "")] if panel.bars else [])
