"""Lines for terminals: text broken at a number of columns, with a hanging indent."""

import re
import unicodedata

from flax_resnet.text import one_line

COLUMNS = 80
# Where lines may be broken: not before a unit, so that 98 % stays together; or after commas.
_SPACES = re.compile(r"\s+(?!%|(?:[kMGT]B|bytes|s|min|h)\b)")
_ITEMS = re.compile(r"(?<=,)\s+")
_WIDE = ("W", "F")  # letters that take two columns, as Chinese ones


def text_columns(text: str) -> int:
    """Return the number of columns that a text takes on a terminal."""
    return sum(map(_columns, text))


def hanging(head: str, text: str, columns: int = COLUMNS, items: bool = False) -> str:
    """Return ``head`` and a text in lines of at most ``columns``, indented below the head.

    Lines are broken between words, and words that are too long, such as paths, after a slash or
    between characters. Whatever is not printable is escaped.

    Args:
      head: begins the first line.
      text: the text.
      columns: of the terminal.
      items: whether lines are broken only after commas.
    """
    indent = text_columns(head)
    breaks = _ITEMS if items else _SPACES
    lines = _wrap(breaks.split(one_line(text).strip()), max(columns - indent, 10))
    return f"\n{' ' * indent}".join([f"{head}{lines[0]}", *lines[1:]]) if lines else head.rstrip()


def cut(text: str, columns: int) -> str:
    """Return the text on one line, cut with an ellipsis after ``columns``."""
    line = one_line(text[: columns + 1])
    if text_columns(line) <= columns and len(text) <= columns:
        return line
    return f"{_fitting(line, columns - 1).rstrip()}…"


def _wrap(words: list[str], columns: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and text_columns(f"{lines[-1]} {word}") <= columns:
            lines[-1] += f" {word}"
            continue
        while text_columns(word) > columns:
            piece = _fitting(word, columns)
            slash = piece.rfind("/") + 1
            piece = piece[:slash] if slash > 1 else piece
            lines.append(piece)
            word = word[len(piece) :]
        lines += [word] * bool(word)
    return lines


def _fitting(text: str, columns: int) -> str:
    """Return the longest start of the text that fits, at least one character with its marks."""
    used, end = 0, 0
    for character in text:
        used += _columns(character)
        if used > columns and end:
            break
        end += 1
    return text[:end]


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1
