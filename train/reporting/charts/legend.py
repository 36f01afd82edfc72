"""Legend of a chart: what its marks mean, and the last value of each line."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from train.reporting.charts.axes import number
from train.reporting.charts.marks import shape, stroke
from train.reporting.charts.palette import color
from train.reporting.charts.panel import Panel, Series

KEY_WIDTH = 26  # of the example of a mark, in pixels


@dataclass(frozen=True)
class Entry:
    """An entry of a legend.

    Attributes:
      key: example of the mark, between (0, -5) and (``KEY_WIDTH``, 5).
      label: its meaning.
      value: last value of a line; empty for none.
    """

    key: str
    label: str
    value: str = ""


def legend(panel: Panel) -> list[Entry]:
    """Return the legend of a panel: marks of the same label once, those without one not at all."""
    entries: dict[str, Entry] = {}
    for entry in _entries(panel):
        if entry.label:
            entries.setdefault(entry.label, entry)
    return list(entries.values())


def _entries(panel: Panel) -> Iterator[Entry]:
    for line in panel.series:
        name = "key line pale" if line.pale else "key line"
        key = f'<path class="{name}" style="{stroke(line)}" d="M1 0H{KEY_WIDTH - 1}"/>'
        key += _dot(line.color) if line.dots else ""
        yield Entry(key, line.label, _last_value(line, panel))
    for band in panel.bands:
        yield Entry(_area("band", band.color), band.label)
    for scatter in panel.scatter:
        yield Entry(_dot(scatter.color), scatter.label)
    if panel.bars:
        yield Entry(_area("bar", panel.bars.color), panel.bars.label)


def _last_value(line: Series, panel: Panel) -> str:
    if panel.bars or line.pale or not panel.last_values:
        return ""
    last = next((y for _, y in reversed(line.points) if math.isfinite(y)), None)
    return "" if last is None else number(last, panel.percent)


def _area(name: str, index: int) -> str:
    outline = f"M1-5H{KEY_WIDTH - 1}V5H1z"
    return f'<path class="key {name}" style="fill:{color(index)}" d="{outline}"/>'


def _dot(index: int) -> str:
    return shape(index, KEY_WIDTH / 2, 0, name="key dot")
