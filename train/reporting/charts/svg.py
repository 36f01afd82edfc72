"""Charts as SVG files, with light colors, for papers and notebooks."""

import textwrap
from collections.abc import Sequence

from flax_resnet.text import one_line, truncate
from train.reporting.charts.elements import file_text, text
from train.reporting.charts.legend import KEY_WIDTH, legend
from train.reporting.charts.panel import Panel
from train.reporting.charts.plot import HEIGHT, WIDTH, plot

_COLUMNS = 3  # charts beside each other
_GAP = 20
_LEFT = 46
_HEADING, _TITLE, _LINE = 26, 22, 16  # heights
_LETTERS = 54  # that fit below a chart


def document(panels: Sequence[Panel], name: str = "") -> str:
    """Return the text of an SVG file with the charts, titles and legends of all panels.

    Args:
      panels: the charts.
      name: whose charts they are, such as a run; the heading.
    """
    columns = max(1, min(_COLUMNS, len(panels)))
    parts, top = [], 0
    if name:
        width = columns * (WIDTH + _GAP)
        heading = truncate(one_line(name), width // 8)
        parts.append(text(_LEFT, 18, heading, "start", kind="heading"))
        top = _HEADING
    for start in range(0, len(panels), _COLUMNS):
        row = panels[start : start + _COLUMNS]
        for column, panel in enumerate(row):
            place = f"translate({column * (WIDTH + _GAP)} {top})"
            parts.append(f'<g transform="{place}">{_chart(panel)}</g>')
        top += HEIGHT + 2 * _TITLE + max(_LINE * _lines_below(panel) for panel in row)
    return file_text("".join(parts), columns * (WIDTH + _GAP), top or HEIGHT)


def _chart(panel: Panel) -> str:
    """Return a chart with its title above, and its legend and note below."""
    parts = [
        text(_LEFT, 16, panel.title, "start", kind="title"),
        f'<g transform="translate(0 {_TITLE})">{plot(panel)}</g>',
    ]
    y = _TITLE + HEIGHT + _LINE
    for entry in legend(panel):
        label = f"{truncate(entry.label, _LETTERS - len(entry.value))} {entry.value}".strip()
        parts.append(f'<g transform="translate({_LEFT} {y - 4})">{entry.key}</g>')
        parts.append(text(_LEFT + KEY_WIDTH + 6, y, label, "start"))
        y += _LINE
    for line in _note(panel):
        parts.append(text(_LEFT, y, line, "start"))
        y += _LINE
    return "".join(parts)


def _lines_below(panel: Panel) -> int:
    return len(legend(panel)) + len(_note(panel))


def _note(panel: Panel) -> list[str]:
    return textwrap.wrap(panel.note, _LETTERS)
