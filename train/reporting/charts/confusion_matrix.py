"""Confusion matrices as SVG."""

from collections.abc import Sequence
from html import escape

from flax_resnet.text import truncate
from train.reporting.charts.elements import file_text, text

MAX_CELLS = 20  # classes with a count in each cell of the confusion matrix
_MAX_TICKS = 60  # classes with labels at the confusion matrix
_Counts = Sequence[Sequence[int]]


def inline(names: Sequence[str], counts: _Counts = (), heat_map: str = "") -> str:
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


def document(names: Sequence[str], counts: _Counts = (), heat_map: str = "") -> str:
    """Return the text of an SVG file with the matrix of :func:`inline`."""
    return file_text(*_matrix(names, counts, heat_map))


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
        parts.append(text(left - 5, middle + 4, label, "end"))
        x, y = left + middle + 4 * upright, side + (5 if upright else 14)
        parts.append(text(x, y, label, "end" if upright else "middle", upright))
    below = side + (round(length) + 20 if upright else 30)
    parts.append(text(11, side / 2, "label", is_upright=True))
    parts.append(text(left + side / 2, below, "prediction"))
    for i in range(11):  # the color key
        opacity = (i / 10) ** 0.5 if heat_map else 0.45 * i / 10
        parts.append(
            f'<rect class="cell" x="{36 + 6 * i}" y="{below + 12}" width="6" height="10"'
            f' fill-opacity="{opacity:.2f}"/>'
        )
    note = "of the label's images" + ", square-root scale" * bool(heat_map)
    parts.append(text(32, below + 21, "0 %", "end"))
    parts.append(text(106, below + 21, f"100 % {note}", "start"))
    return "".join(parts), max(left + side + 12, 330 if heat_map else 260), below + 30
