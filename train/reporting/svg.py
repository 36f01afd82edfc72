"""Charts as SVG: in a page with its light or dark colors, and as files with the light ones."""

import math
import re
from collections.abc import Sequence
from html import escape

from flax_resnet.text import truncate
from train.reporting.curves import Panel

COLORS = 8  # --c0 … --c7 of the palettes; further lines are dashed
LIGHT = {
    **{"back": "#fff", "card": "#f5f6f8", "text": "#1b1f24", "weak": "#545d68"},
    **{"line": "#d0d7de", "heat": "37,99,235", "link": "#0a58ca"},
    **{"c0": "#0b62a8", "c1": "#c2410c", "c2": "#0f766e", "c3": "#9333a8"},
    **{"c4": "#8a5a00", "c5": "#be185d", "c6": "#4d7c0f", "c7": "#475569"},
}
DARK = {
    **{"back": "#14171c", "card": "#1e232a", "text": "#e8ebef", "weak": "#a9b3bf"},
    **{"line": "#3b434d", "heat": "96,165,250", "link": "#7db5ff"},
    **{"c0": "#6cb6ff", "c1": "#ff9d5c", "c2": "#4fd1c5", "c3": "#d7a0ff"},
    **{"c4": "#f2c94c", "c5": "#ff8fb8", "c6": "#a3d977", "c7": "#b0bccd"},
}
STYLE = """\
svg text { font-size: 11px; fill: var(--weak); }
svg .title { font-size: 13px; font-weight: 600; fill: var(--text); }
svg .count { fill: var(--text); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--weak); fill: none; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .bar { fill-opacity: .35; }
svg .cell { fill: rgb(var(--heat)); }
"""
_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 34  # margins
_COLUMNS = 3  # charts beside each other in a file
_MAX_DOTS = 120
MAX_CELLS = 20  # classes with a count in each cell of the confusion matrix
_MAX_TICKS = 60  # classes with labels at the confusion matrix
_Counts = Sequence[Sequence[int]]


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
                parts.append(_text(_LEFT + 24, y, f"{truncate(label, 45)} {value}", "start"))
            parts.append("</g>")
        top += _HEIGHT + 44 + 16 * max(len(_legend(panel)) for panel in row)
    return _file("".join(parts), max(1, min(_COLUMNS, len(panels))) * wide, top or _HEIGHT)


def confusion_matrix(names: Sequence[str], counts: _Counts = (), heat_map: str = "") -> str:
    """Return the ``<svg>`` of a confusion matrix: labels in rows, predictions in columns.

    Args:
      names: the outputs; of more than 60 the names are omitted.
      counts: examples per cell, shown as numbers. The color is the share of the row.
      heat_map: data URI of an image with a pixel per cell, in place of ``counts``. Its color is
        the square root of the share of the row, which keeps rare confusions visible.
    """
    drawing, width, height = _matrix(names, counts, heat_map)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="confusion matrix"'
        f' style="width:{width}px">{drawing}</svg>'
    )


def confusion_document(names: Sequence[str], counts: _Counts = (), heat_map: str = "") -> str:
    """Return the text of an SVG file with the matrix of :func:`confusion_matrix`."""
    return _file(*_matrix(names, counts, heat_map))


def ticks(low: float, high: float) -> list[float]:
    """Return at most 6 round numbers in a range: multiples of 1, 2 or 5 times 10ⁿ."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float, is_share: bool = False) -> str:
    """Return a number as text: ``1.25``, ``12,500``, ``97.5 %``."""
    if is_share:
        return f"{100 * value:.4g} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _drawing(panel: Panel) -> str:
    """Return the elements of a chart of ``_WIDTH`` × ``_HEIGHT``."""
    bars = panel.bars.bars if panel.bars else []
    values = [y for line in panel.series for _, y in line.points] + [y for *_, y in bars]
    right = max([x for line in panel.series for x, _ in line.points] + [x for _, x, _ in bars])
    right = right or 1.0
    low, high = _limits(values, panel.low, panel.high)
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
        parts.append(_text(margin - 5, up(y) + 4, number(y, panel.percent), "end"))
    parts += [_text(across(x), bottom + 15, number(x)) for x in ticks(0, right)]
    if panel.y:
        parts.append(_text(11, (_TOP + bottom) / 2, panel.y, is_upright=True))
    for start, end, y in bars:
        parts.append(
            f'<rect class="bar" style="fill:{_color(panel.bars.color)}"'
            f' x="{across(start) + 0.5:.1f}" y="{up(y):.1f}"'
            f' width="{across(end) - across(start) - 1:.1f}" height="{up(low) - up(y):.1f}">'
            f"<title>{escape(panel.bars.label)}, {escape(panel.x)} {number(start)} to"
            f" {number(end)}: {number(y, panel.percent)}</title></rect>"
        )
    parts.append(f'<path class="axis" d="M{margin} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>')
    parts.append(_text((margin + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, panel.x))
    for line in panel.series:
        color = _color(line.color)
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


def _text(x: float, y: float, text: str, anchor: str = "middle", is_upright: bool = False) -> str:
    """Return a ``<text>`` element; upright text reads from bottom to top."""
    place = f'transform="translate({x:.5g} {y:.5g}) rotate(-90)"'
    if not is_upright:
        place = f'x="{x:.5g}" y="{y:.5g}"'
    return f'<text {place} text-anchor="{anchor}">{escape(text)}</text>'


def _matrix(names: Sequence[str], counts: _Counts, heat_map: str) -> tuple[str, int, int]:
    """Return the elements of a confusion matrix, its width and its height."""
    size = len(names)
    labels = [truncate(name, 20) for name in names] if size <= _MAX_TICKS else []
    digits = max((len(f"{n}") for row in counts for n in row), default=0)
    cell = max(24, 7 * digits + 8) if size <= MAX_CELLS else max(1, 13 if labels else 600 // size)
    # Letters beyond U+2E80 (Chinese, Japanese, Korean) are about twice as wide as Latin ones.
    length = max((sum(12 if c > "\u2e7f" else 6.6 for c in label) for label in labels), default=0)
    upright = length > cell
    left, side = round(length) + 30, cell * size
    parts = []
    if heat_map:
        parts.append(
            f'<image href="{escape(heat_map)}" x="{left}" y="0" width="{side}" height="{side}"'
            ' style="image-rendering:pixelated" preserveAspectRatio="none"/>'
        )
    for i, row in enumerate(counts):
        total = sum(row) or 1
        parts += [
            f'<rect class="cell" x="{left + j * cell}" y="{i * cell}" width="{cell}"'
            f' height="{cell}" fill-opacity="{0.45 * n / total:.2f}"/><text class="count"'
            f' x="{left + (j + 0.5) * cell}" y="{(i + 0.5) * cell + 4}" text-anchor="middle">'
            f"{n}<title>{escape(f'{labels[i]} → {labels[j]}')}: {n}</title></text>"
            for j, n in enumerate(row)
            if n
        ]
    parts.append(f'<path class="axis" d="M{left} 0h{side}v{side}h{-side}z"/>')
    for i, label in enumerate(labels):
        middle = (i + 0.5) * cell
        parts.append(_text(left - 5, middle + 4, label, "end"))
        x, y = left + middle + 4 * upright, side + (5 if upright else 14)
        parts.append(_text(x, y, label, "end" if upright else "middle", upright))
    below = side + (round(length) + 20 if upright else 30)
    parts.append(_text(11, side / 2, "label", is_upright=True))
    parts.append(_text(left + side / 2, below, "prediction"))
    for i in range(11):  # the color key
        opacity = (i / 10) ** 0.5 if heat_map else 0.45 * i / 10
        parts.append(
            f'<rect class="cell" x="{36 + 6 * i}" y="{below + 12}" width="6" height="10"'
            f' fill-opacity="{opacity:.2f}"/>'
        )
    note = "of the label's images" + ", square-root scale" * bool(heat_map)
    parts.append(_text(32, below + 21, "0 %", "end"))
    parts.append(_text(106, below + 21, f"100 % {note}", "start"))
    return "".join(parts), max(left + side + 12, 330 if heat_map else 260), below + 30


def _file(drawing: str, width: int, height: int) -> str:
    """Return the text of an SVG file, with fixed colors because many viewers know no variables."""
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="sans-serif">\n<style>\n{STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="var(--back)"/>\n{drawing}\n</svg>\n'
    )
    text = re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], text)
    return text.encode("utf-8", "replace").decode()  # class names may hold invalid bytes


def _legend(panel: Panel) -> list[tuple[str, str, str]]:
    """Return color, label and last value of all lines; no values beside bars."""
    items = []
    for line in panel.series:
        value = "" if panel.bars else number(line.points[-1][1], panel.percent)
        items.append((_color(line.color), line.label, value))
    return items + ([(_color(panel.bars.color), panel.bars.label, "")] if panel.bars else [])


def _limits(values: list[float], low: float | None, high: float | None) -> tuple[float, float]:
    """Return the limits of an axis around the values, never of length 0."""
    smallest, largest = min(values), max(values)
    room = 0.05 * (largest - smallest) or 0.05 * abs(largest) or 1.0
    if low is None:
        low = 0.0 if 0 <= smallest <= room else smallest - room
    if high is None:
        high = largest + room
    return min(low, smallest), max(high, largest)


def _color(index: int) -> str:
    """Return a CSS color, with the dash style of further lines."""
    dashes = index // COLORS
    dash = f";stroke-dasharray:{2 + 3 * dashes} 3" if dashes else ""
    return f"var(--c{index % COLORS}){dash}"
