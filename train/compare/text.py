"""A comparison as text for the console."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from itertools import takewhile

from flax_resnet.text import one_line
from train.compare.tables import TextTable
from train.runtime.columns import text_columns

_MAX_CELL = 44  # characters
_INDENT = "  "


def console_width() -> int:
    """Return the columns of the terminal, or of ``COLUMNS``; 80 without one."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def aligned(table: TextTable, width: int | None = None) -> list[str]:
    """Return the lines of a table, and a last one with the titles of omitted columns.

    Columns that do not fit are omitted, the last ones first, but not the first two.
    """
    width = width or console_width()
    columns = [list(map(one_line, column)) for column in zip(*_rows(table), strict=True)]
    columns[0][1:] = _without_common_start(columns[0][1:])
    columns = [list(map(_cut, column)) for column in columns]
    widths = [max(map(text_columns, column)) for column in columns]
    count = len(columns)
    while count > min(2, len(columns)) and sum(widths[:count]) + 2 * (count - 1) > width:
        count -= 1
    lines = [
        _INDENT.join(_padded(c, w) for c, w in zip(line, widths, strict=False)).rstrip()
        for line in zip(*columns[:count], strict=True)
    ]
    if count < len(columns):
        titles = ", ".join(column[0] for column in columns[count:])
        lines += wrapped(f"on the page only: {titles}", width)
    return lines


def wrapped(text: str, width: int | None = None) -> list[str]:
    """Return a sentence in lines that fit the console."""
    width = width or console_width()
    return textwrap.wrap(
        one_line(text),
        width,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
        break_long_words=False,  # such as paths, to copy
    ) or [""]


def _rows(table: TextTable) -> Sequence[Sequence[str]]:
    return table.head, *table.rows


def _without_common_start(names: list[str]) -> list[str]:
    """Return long names without the words with which all begin."""
    if len(names) < 2 or max(map(len, names)) <= _MAX_CELL:
        return names
    alike = takewhile(lambda characters: len({*characters}) == 1, zip(*names, strict=False))
    common = re.match(r"(.*[,=_./ -])?", "".join(characters[0] for characters in alike))[0]
    return [f"…{name[len(common) :]}" if common else name for name in names]


def _cut(text: str) -> str:
    """Return text of limited length, cut in its middle: names often differ at their ends."""
    if len(text) <= _MAX_CELL:
        return text
    return f"{text[: _MAX_CELL // 2]}…{text[1 - _MAX_CELL // 2 :]}"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - text_columns(text))
