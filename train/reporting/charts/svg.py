"""Charts as SVG: in a page with its light or dark colors, and as files with the light ones."""

from collections.abc import Sequence
from html import escape

from flax_resnet.text import truncate
from train.reporting.charts.axes import number
from train.reporting.charts.elements import file_text, text
from train.reporting.charts.legend import KEY_WIDTH, legend
from train.reporting.charts.panel import Panel
from train.reporting.charts.plot import HEIGHT, WIDTH, plot

_COLUMNS = 3  # charts beside each other in a file
_LEFT = 46


def figure(panel: Panel) -> str:
    """Return an HTML ``<figure>``: title, chart, and a legend with the last value of each line."""
    entries = "".join(
        f'<li><svg class="keys" viewBox="0 -7 {KEY_WIDTH} 14" aria-hidden="true">{entry.key}</svg>'
        + escape(entry.label)
        + (f" <b>{entry.value}</b></li>" if entry.value else "</li>")
        for entry in legend(panel)
    )
    ranges = ", ".join(
        f"{line.label} from {number(line.points[0][1], panel.percent)}"
        f" to {number(line.points[-1][1], panel.percent)}"
        for line in panel.series
    )
    label = escape(f"{panel.title} over {panel.x}: {ranges}".removesuffix(": "))
    return (
        f"<figure><figcaption>{escape(panel.title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'{plot(panel)}</svg><ul class="legend">{entries}</ul></figure>'
    )


def document(panels: Sequence[Panel]) -> str:
    """Return the text of an SVG file with the charts, titles and legends of all panels."""
    parts, top, wide = [], 0, WIDTH + 20
    for start in range(0, len(panels), _COLUMNS):
        row = panels[start : start + _COLUMNS]
        for column, panel in enumerate(row):
            parts.append(
                f'<g transform="translate({column * wide} {top})">'
                f'<text class="title" x="{_LEFT}" y="16">{escape(panel.title)}</text>'
                f'<g transform="translate(0 22)">{plot(panel)}</g>'
            )
            for line, entry in enumerate(legend(panel)):
                y = HEIGHT + 38 + 16 * line
                label = f"{truncate(entry.label, 45)} {entry.value}"
                parts.append(f'<g transform="translate({_LEFT} {y - 4})">{entry.key}</g>')
                parts.append(text(_LEFT + KEY_WIDTH + 6, y, label, "start"))
            parts.append("</g>")
        top += HEIGHT + 44 + 16 * max(len(legend(panel)) for panel in row)
    return file_text("".join(parts), max(1, min(_COLUMNS, len(panels))) * wide, top or HEIGHT)
