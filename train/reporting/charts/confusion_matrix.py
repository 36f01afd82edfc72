"""Confusion matrices as SVG: colored by the share of the row, right and wrong cells in two hues."""

import math
from collections import defaultdict
from html import escape

from flax_resnet.text import truncate
from train.reporting.charts.elements import file_text, text, text_length
from train.reporting.charts.shades import STEPS
from train.reporting.confusions import Cell, Confusions
from train.runtime.formatting import format_percent, pluralize

MAX_NUMBERED = 20  # classes with share and count in each cell
MAX_NAMED = 60  # classes with names beside a matrix in the page
MAX_NAMED_IN_FILE = 1000  # in a file or a window, which can be enlarged
_MAX_TITLES = 1500  # wrong cells with a title
_MAX_LETTERS = 20  # of a class name at an axis; its title has more
_MAX_TITLE = 80  # letters of a class name in a title
_HEADING = 48  # height of title and subtitle in a file
_KEY = 74  # height of the color keys
_KEY_LEFT, _KEY_WIDTH = 44, 372

Drawing = tuple[str, int, int]  # elements of SVG, width and height


def inline(confusions: Confusions, key: str = "") -> str:
    """Return the ``<svg>`` of a confusion matrix: true classes in rows, predicted in columns.

    Up to 20 classes have share and count in each cell. Of more the numbers are titles, and of more
    than 60 there are neither names nor numbers.

    Args:
      confusions: the matrix.
      key: identifier of the cells of more than 20 classes, with a side of 1.
    """
    drawing, width, height = _matrix(confusions, MAX_NAMED, key)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_summary(confusions)}"'
        f' style="width:{width}px">{drawing}</svg>'
    )


def document(confusions: Confusions, subtitle: str) -> str:
    """Return the text of an SVG file with title, subtitle and the matrix of :func:`inline`.

    Args:
      confusions: the matrix; up to 1,000 classes have their names.
      subtitle: run and data.
    """
    drawing, width, height = _matrix(confusions, MAX_NAMED_IN_FILE, "")
    subtitle = truncate(subtitle, 200)
    drawing = (
        text(11, 18, "Confusion matrix", "start", kind="title")
        + text(11, 35, subtitle, "start")
        + f'<g transform="translate(0 {_HEADING})">{drawing}</g>'
    )
    return file_text(drawing, max(width, 22 + round(text_length(subtitle))), height + _HEADING)


def cell_class(share: float, is_right: bool) -> str:
    """Return the CSS class of a cell: its hue and the tenth of the share of the row.

    Of wrong cells it is the tenth of the square root, which keeps rare confusions visible.
    """
    step = math.ceil(STEPS * (share if is_right else math.sqrt(share)) - 1e-9)
    return f"{'r' if is_right else 'w'}{min(max(step, 1), STEPS)}"


def cell_title(confusions: Confusions, cell: Cell) -> str:
    """Return true and predicted class, count and share of a cell as text."""
    label, predicted = (truncate(confusions.names[index], _MAX_TITLE // 2) for index in cell[:2])
    verb = "right" if cell.label == cell.predicted else f"predicted as {predicted}"
    share = format_percent(confusions.share(cell))
    return f"{label}: {pluralize(cell.examples, 'image')} ({share}) {verb}"


def paths(confusions: Confusions) -> str:
    """Return all cells of a matrix with a side of 1, one path for each color."""
    place = {index: position for position, index in enumerate(confusions.order)}
    squares = defaultdict(list)
    for cell in confusions.cells:
        name = cell_class(confusions.share(cell), cell.label == cell.predicted)
        squares[name].append(f"M{place[cell.predicted]} {place[cell.label]}h1v1h-1z")
    return "".join(f'<path class="{name}" d="{"".join(d)}"/>' for name, d in squares.items())


def titles(confusions: Confusions) -> str:
    """Return an invisible square with a title for each right cell, and for the worst wrong ones."""
    place = {index: position for position, index in enumerate(confusions.order)}
    cells = sorted(confusions.cells, key=lambda c: (c.label != c.predicted, -c.examples))
    squares = (
        f'<path d="M{place[cell.predicted]} {place[cell.label]}h1v1h-1z">'
        f"<title>{escape(cell_title(confusions, cell))}</title></path>"
        for cell in cells[:_MAX_TITLES]
    )
    return f'<g fill-opacity="0" stroke="none">{"".join(squares)}</g>'


def row_labels(confusions: Confusions, x: float, cell: float) -> str:
    """Return the names of the rows, which end at ``x``, with whole names and counts as titles."""
    return "".join(
        _label(confusions, index, x, (row + 0.5) * cell + 4, "end")
        for row, index in enumerate(confusions.order)
    )


def column_labels(
    confusions: Confusions, y: float, cell: float, anchor: str, is_upright: bool = True
) -> str:
    """Return the names of the columns: below ``y``, or with the anchor ``"start"`` above it."""
    return "".join(
        _label(confusions, index, (column + 0.5) * cell + 4 * is_upright, y, anchor, is_upright)
        for column, index in enumerate(confusions.order)
    )


def _label(
    confusions: Confusions,
    index: int,
    x: float,
    y: float,
    anchor: str,
    is_upright: bool = False,
) -> str:
    name, total = confusions.names[index], confusions.totals[index]
    drawn = text(x, y, truncate(name, _MAX_LETTERS), anchor, is_upright)
    title = f"{truncate(name, _MAX_TITLE)}: {pluralize(total, 'image')}"
    return drawn.replace("</text>", f"<title>{escape(title)}</title></text>")


def _summary(confusions: Confusions) -> str:
    """Return the text alternative of a matrix."""
    images, size = sum(confusions.totals), len(confusions.names)
    right = sum(c.examples for c in confusions.cells if c.label == c.predicted)
    return escape(
        f"confusion matrix of {pluralize(size, 'class')}, {pluralize(images, 'image')},"
        f" {format_percent(right / max(1, images))} right"
    )


def _matrix(confusions: Confusions, most_named: int, key: str) -> Drawing:
    """Return a matrix with axes and color keys."""
    size = len(confusions.names)
    if size <= MAX_NUMBERED:
        wide, high = (76, 52) if size <= 4 else (56, 42) if size <= 10 else (48, 38)
    else:
        wide = high = 13 if size <= most_named else min(13, 640 / size)
    is_named = size <= max(MAX_NUMBERED, most_named)
    shown = [truncate(name, _MAX_LETTERS) for name in confusions.names] if is_named else []
    length = max(map(text_length, shown), default=0)
    is_upright = length > wide
    left, top = round(length) + 32, 18
    width, height = size * wide, size * high
    parts = []
    if size <= MAX_NUMBERED:
        parts.append(_numbered(confusions, wide, high))
        parts.append(_totals(confusions, width + 8, high))
    else:
        stroke = max(0, 3 / wide - 1)  # cells smaller than 3 px are enlarged
        scaled = f'transform="scale({wide:.6g})" stroke-width="{stroke:.3g}"'
        identifier = f' id="{key}"' if key else ""
        parts.append(f"<g {scaled}><g{identifier}>{paths(confusions)}</g>")
        parts.append(f"{titles(confusions) if size <= most_named else ''}</g>")
        parts.append(_empty_rows(confusions, width, high))
    parts.append(f'<path class="axis" d="M0 0h{width:.6g}v{height:.6g}h{-width:.6g}z"/>')
    if is_named:
        parts.append(row_labels(confusions, -6, high))
        y = height + (6 if is_upright else 15)
        parts.append(
            column_labels(confusions, y, wide, "end" if is_upright else "middle", is_upright)
        )
    below = height + (round(length) + 22 if is_upright else 34 if is_named else 18)
    parts.append(text(11 - left, height / 2, "true class", is_upright=True))
    parts.append(text(width / 2, below, "predicted class"))
    parts.append(f'<g transform="translate({11 - left} {below + 16:.6g})">{_keys()}</g>')
    drawing = f'<g transform="translate({left} {top})">{"".join(parts)}</g>'
    right = 64 if size <= MAX_NUMBERED else 12
    full = max(left + width + right, _KEY_WIDTH)
    return drawing, math.ceil(full), math.ceil(top + below + 16 + _KEY)


def _numbered(confusions: Confusions, wide: int, high: int) -> str:
    """Return the cells with share and count in each."""
    place = {index: position for position, index in enumerate(confusions.order)}
    size, parts = len(confusions.names), []
    for cell in confusions.cells:
        name = cell_class(confusions.share(cell), cell.label == cell.predicted)
        x, y = place[cell.predicted] * wide, place[cell.label] * high
        middle, share = x + wide / 2, _short_percent(confusions.share(cell))
        parts.append(
            f'<rect class="{name}" stroke-width="0" x="{x}" y="{y}" width="{wide}"'
            f' height="{high}"/><text class="count {name}" text-anchor="middle"'
            f' x="{middle:.6g}" y="{y + high / 2 - 2:.6g}">{share}'
            f'<tspan x="{middle:.6g}" dy="13">{cell.examples:,}</tspan>'
            f"<title>{escape(cell_title(confusions, cell))}</title></text>"
        )
    lines = "".join(
        f"M0 {n * high}h{size * wide}M{n * wide} 0v{size * high}" for n in range(1, size)
    )
    return "".join(parts) + (f'<path class="grid" d="{lines}"/>' if lines else "")


def _totals(confusions: Confusions, x: float, high: float) -> str:
    """Return the number of images at the end of each row; a row without images is marked."""
    parts = [text(x, -6, "images", "start")]
    for row, index in enumerate(confusions.order):
        total = confusions.totals[index]
        parts.append(text(x, (row + 0.5) * high + 4, f"{total:,}" if total else "none", "start"))
    return "".join(parts) + _empty_rows(confusions, x - 8, high)


def _empty_rows(confusions: Confusions, width: float, high: float) -> str:
    """Return a dashed line through each row without images."""
    lines = "".join(
        f"M0 {(row + 0.5) * high:.6g}h{width:.6g}"
        for row, index in enumerate(confusions.order)
        if not confusions.totals[index]
    )
    return f'<path class="empty" d="{lines}"/>' if lines else ""


def _keys() -> str:
    """Return the two color keys: tenths of the share, and of its square root."""
    parts, side = [], 18
    ticks = {
        "r": [f"{10 * step}" for step in range(0, STEPS + 1, 2)],
        "w": [f"{step * step}" for step in range(0, STEPS + 1, 2)],
    }
    names = {"r": "right", "w": "wrong"}
    for row, (letter, numbers) in enumerate(ticks.items()):
        y = 34 * row
        parts.append(text(0, y + 10, names[letter], "start"))
        parts += [
            f'<rect class="{letter}{step}" stroke-width="0" y="{y}" width="{side}" height="12"'
            f' x="{_KEY_LEFT + side * (step - 1)}"/>'
            for step in range(1, STEPS + 1)
        ]
        for index, number in enumerate(numbers):
            percent = " %" * (index == len(numbers) - 1)
            parts.append(text(_KEY_LEFT + 2 * side * index, y + 23, number + percent))
    parts.append(text(_KEY_LEFT + STEPS * side + 22, 10, "of the true class", "start"))
    return "".join(parts)


def _short_percent(share: float) -> str:
    """Return a share with at most four characters and the sign: ``"100 %"``, ``"3.4 %"``."""
    if share < 0.0005:
        return "<0.1 %"
    return format_percent(share, 0 if share >= 0.9995 else 1)


def legacy(size: int, heat_map: str) -> str:
    """Return the ``<svg>`` of the image of a matrix, as older versions stored it.

    Args:
      size: number of classes.
      heat_map: data URI of an image with a pixel per cell.
    """
    image = (
        f'<image href="{escape(heat_map)}" x="32" y="18" width="600" height="600"'
        ' style="image-rendering:pixelated" preserveAspectRatio="none"/>'
    )
    axes = text(21, 318, "true class", is_upright=True) + text(332, 632, "predicted class")
    note = text(32, 654, "color: square root of the share of the true class", "start")
    return (
        f'<svg viewBox="0 0 644 664" role="img" aria-label="confusion matrix of {size:,} classes"'
        f' style="width:644px">{image}{axes}{note}</svg>'
    )


def zoomed(confusions: Confusions, key: str) -> str:
    """Return the HTML of a whole matrix, whose names stay in view while it scrolls.

    Args:
      confusions: the matrix.
      key: identifier of the cells in the page, see :func:`inline`.
    """
    size = len(confusions.names)
    cell = 15 if size <= 300 else 12
    side = size * cell
    shown = (truncate(name, _MAX_LETTERS) for name in confusions.names)
    length = math.ceil(max(map(text_length, shown), default=0)) + 10
    rows, columns = (
        row_labels(confusions, length - 5, cell),
        column_labels(confusions, length - 5, cell, "start"),
    )
    empty = _empty_rows(confusions, size, 1).replace("<path", '<path stroke-width=".1"')
    return (
        '<div class="zoom"><div class="top left">true class ↓<br/>predicted class →</div>'
        f'<svg class="top" style="{_size(side, length)}" aria-hidden="true">{columns}</svg>'
        f'<svg class="left" style="{_size(length, side)}" aria-hidden="true">{rows}</svg>'
        f'<svg style="{_size(side, side)}" viewBox="0 0 {size} {size}" role="img"'
        f' aria-label="{_summary(confusions)}"><use href="#{key}" stroke-width="0"/>'
        f"{empty}{titles(confusions)}</svg></div>"
    )


def _size(width: int, height: int) -> str:
    return f"width:{width}px;height:{height}px"
