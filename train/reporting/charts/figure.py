"""Charts in a page: with values under the pointer, a table, and downloads as SVG and CSV."""

import base64
import re
from collections.abc import Iterator
from html import escape

from train.reporting.charts.hover import hover_areas
from train.reporting.charts.legend import KEY_WIDTH, legend
from train.reporting.charts.panel import Panel
from train.reporting.charts.plot import HEIGHT, WIDTH, axes, plot
from train.reporting.charts.readings import csv_text, readings, text
from train.reporting.charts.svg import document

_MAX_ROWS = 40  # of a table; the CSV file has all points


def figure(panel: Panel, name: str = "") -> str:
    """Return an HTML ``<figure>``: title, chart, legend, and folded a table and downloads.

    Args:
      panel: the chart.
      name: whose chart it is, such as a run; in the names of the downloads and the SVG file.
    """
    entries = "".join(
        f'<li><svg class="keys" viewBox="0 -7 {KEY_WIDTH} 14" aria-hidden="true">{entry.key}</svg>'
        + escape(entry.label)
        + (f" <b>{entry.value}</b></li>" if entry.value else "</li>")
        for entry in legend(panel)
    )
    drawing = plot(panel) + hover_areas(panel, *axes(panel))
    label = escape(_description(panel))
    note = f'<p class="note weak">{escape(panel.note)}</p>' if panel.note else ""
    return (
        f"<figure><figcaption>{escape(panel.title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{drawing}</svg>'
        f'<ul class="legend">{entries}</ul>{note}'
        f"<details><summary>Values and downloads</summary>{_downloads(panel, name)}{_table(panel)}"
        "</details></figure>"
    )


def _description(panel: Panel) -> str:
    """Return what the chart shows, for screen readers."""
    ranges = ", ".join(
        f"{line.label} from {text(line.points[0][1], panel.percent)}"
        f" to {text(line.points[-1][1], panel.percent)}"
        for line in panel.series
    )
    return f"{panel.title} over {panel.x}: {ranges}".removesuffix(": ")


def _downloads(panel: Panel, name: str) -> str:
    """Return links that save the chart and its points."""
    stem = re.sub(r"[^\w.-]+", "-", f"{name} {panel.title}".strip()).strip("-.").lower()[:80]
    svg = _link("SVG", stem, "image/svg+xml", document([panel], name))
    return f'<p class="downloads">{svg} {_link("CSV", stem, "text/csv", csv_text(panel))}</p>'


def _link(kind: str, stem: str, mime: str, content: str) -> str:
    encoded = base64.b64encode(content.encode("utf-8", "replace")).decode()
    file = f"{escape(stem)}.{kind.lower()}"
    return f'<a download="{file}" href="data:{mime};base64,{encoded}">{kind}</a>'


def _table(panel: Panel) -> str:
    """Return some of the values of the lines; nothing without any line."""
    if not panel.series:
        return ""
    inside = "".join(_rows(panel))
    label = escape(f"values of {panel.title}")
    return (
        f'<div class="wide tall" tabindex="0" role="group" aria-label="{label}"><table>{inside}'
        "</table></div>"
    )


def _rows(panel: Panel) -> Iterator[str]:
    names = [panel.x, *(line.label or panel.title for line in panel.series)]
    head = "".join(f'<th scope="col" class=n>{escape(name)}</th>' for name in names)
    yield f"<thead><tr>{head}</tr></thead><tbody>"
    for reading in readings(panel, _MAX_ROWS):
        cells = "".join(f"<td class=n>{text(v, panel.percent)}</td>" for v in reading.values)
        x = text(reading.x, panel.x_percent)
        yield f'<tr><th scope="row" class=n>{x}</th>{cells}</tr>'
    yield "</tbody>"
