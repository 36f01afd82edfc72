"""The part of the report on confusions: the matrix, which opens large, and the worst pairs."""

from collections.abc import Mapping
from typing import Any

from flax_resnet import schema
from flax_resnet.text import one_line
from train.engine.predictions import output_names
from train.reporting import html_page
from train.reporting.charts import confusion_matrix
from train.reporting.confusions import (
    MAX_ORDERED,
    MAX_STORED,
    Cell,
    Confusions,
    matrix_cells,
)
from train.reporting.report import enlarge
from train.runtime.formatting import format_percent, pluralize

_MAX_PAIRS = 25  # in the table
_COUNT = schema.integer()
FIELDS = {
    "confusion": schema.optional(
        schema.sequence(
            schema.sequence(_COUNT, 0, confusion_matrix.MAX_NUMBERED),
            *(0, confusion_matrix.MAX_NUMBERED),
        )
    ),
    # Label, predicted and count of each cell in turn.
    "confusion_cells": schema.optional(schema.sequence(_COUNT, 0, 3 * MAX_STORED)),
    "confusion_order": schema.optional(schema.sequence(_COUNT, 0, MAX_ORDERED)),
    "heat_map": schema.optional(html_page.data_uri),  # of an older version, for many classes
}


def check(fields: Mapping[str, Any]) -> None:
    """Raise ValueError if the fields do not fit the outputs and classes of the evaluation."""
    outputs, counts = fields["outputs"], fields["confusion"]
    cells, order = fields["confusion_cells"] or (), fields["confusion_order"]
    if (
        outputs < len(fields["classes"])
        or (counts and {outputs} != {len(counts), *map(len, counts)})
        or len(cells) % 3
        or any(index >= outputs for start in (0, 1) for index in cells[start::3])
        or (order is not None and sorted(order) != list(range(outputs)))
    ):
        raise ValueError(f"its classes or confusion matrix do not fit its {outputs} outputs")


def build(confusions: Confusions) -> dict[str, Any]:
    """Return the fields of many classes, for JSON."""
    size = len(confusions.names)
    if size <= confusion_matrix.MAX_NUMBERED:
        return {}
    fields: dict[str, Any] = {
        "confusion_cells": [number for cell in confusions.cells for number in cell]
    }
    if size <= MAX_ORDERED:
        fields["confusion_order"] = list(confusions.order)
    return fields


def read(part: Mapping[str, Any]) -> Confusions | None:
    """Return the confusions of a part; None if it has none, or only an image of them."""
    names = output_names([one["name"] for one in part["classes"]], part["outputs"])
    if part.get("confusion"):
        totals = [sum(row) for row in part["confusion"]]
        return Confusions(names, totals, matrix_cells(part["confusion"]), range(len(names)))
    if part.get("confusion_cells") is None:
        return None
    totals = [one["examples"] for one in part["classes"]]
    totals += [0] * (len(names) - len(totals))
    numbers = iter(part["confusion_cells"])
    cells = [Cell(*cell) for cell in zip(numbers, numbers, numbers, strict=True)]
    return Confusions(names, totals, cells, part.get("confusion_order") or range(len(names)))


def section(part: Mapping[str, Any], key: str) -> list[str]:
    """Return the HTML of the confusions of an evaluation; ``key`` identifies it in the page."""
    confusions = read(part)
    if confusions is None:
        if not part.get("heat_map"):
            return []
        drawing = confusion_matrix.legacy(part["outputs"], part["heat_map"])
        return ["<h3>Confusion matrix</h3>", html_page.scrolling(drawing, "confusion matrix")]
    size, notes = len(confusions.names), []
    if size > confusion_matrix.MAX_NUMBERED:
        notes.append(
            "Classes that are confused with each other lie side by side, in the order of a"
            " hierarchical clustering. Hovering over a cell shows its numbers."
            if part.get("confusion_order")
            else "The classes are in the order of their numbers."
        )
    if confusions.omitted:
        notes.append(
            f"Without the {pluralize(confusions.omitted, 'image')} of the cells with the fewest."
        )
    empty = sum(not total for total in confusions.totals)
    if empty:
        notes.append(f"A dashed line marks the rows of classes without images ({empty:,}).")
    drawing = confusion_matrix.inline(confusions, f"{key}c")
    matrix = html_page.scrolling(drawing, "confusion matrix") + _window(confusions, key)
    title = "<h3>Confusion matrix</h3>"
    note = html_page.paragraph(" ".join(notes), "weak") if notes else ""
    pairs = _worst(confusions)
    if size <= confusion_matrix.MAX_NUMBERED:  # of many classes the worst pairs come first
        return [_beside(title + note + matrix, pairs)]
    return [_beside(pairs, title + note + matrix)]


def _beside(*parts: str) -> str:
    inside = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div class="beside">{inside}</div>'


def _worst(confusions: Confusions) -> str:
    """Return a table of the most frequent confusions; nothing for two classes, or without any."""
    pairs = confusions.worst(_MAX_PAIRS)
    if len(confusions.names) < 3 or not pairs:
        return ""
    rows = [
        (
            one_line(one.label),
            one_line(one.predicted),
            f"{one.examples:,}",
            format_percent(one.share),
        )
        for one in pairs
    ]
    head = ("true class", "predicted class", "images", "share")
    label = "most frequent confusions; the share is that of the true class"
    note = html_page.paragraph("The share is that of the images of the true class.", "weak")
    return f"<h3>Most frequent confusions</h3>{note}{html_page.table(head, rows, label)}"


def _window(confusions: Confusions, key: str) -> str:
    """Return the whole matrix in a window that scrolls, with all names, if the page has none."""
    size = len(confusions.names)
    if not confusion_matrix.MAX_NAMED < size <= confusion_matrix.MAX_NAMED_IN_FILE:
        return ""
    title = f"Confusion matrix of {size:,} classes"
    inside = confusion_matrix.zoomed(confusions, f"{key}c")
    return enlarge.opener(f"{key}m", "Open large, with all names") + enlarge.window(
        f"{key}m", title, inside
    )
