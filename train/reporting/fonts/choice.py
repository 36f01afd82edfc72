"""Which font draws which part of a text, and a warning about characters that no font has."""

import itertools
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from train.reporting.fonts.character_map import covers
from train.reporting.fonts.font_files import installed_fonts, primary_font
from train.reporting.fonts.scripts import SHAPED, describe_missing, script

_warned: set[str] = set()
_chosen: dict[str, None] = {}  # fonts, in the order of their first use


class GlyphWarning(UserWarning):
    """A text was not drawn as it should be, since a font or a library is missing."""


class TextPart(NamedTuple):
    """Part of a line in one font; the path is None for the built-in font of Pillow."""

    text: str
    path: str | None


def parts(line: str) -> list[TextPart]:
    """Return a line in parts of one font each.

    A word stays in one font if there is one for all of it, since letters of Arabic and Indic
    scripts change with their neighbors.
    """
    merged: list[TextPart] = []
    space = ""
    for text, path in _in_fonts(line):
        if text.isspace():
            space = text
            continue
        if merged and merged[-1].path == path:
            merged[-1] = TextPart(merged[-1].text + space + text, path)
        else:
            merged += [TextPart(space, primary_font())] * bool(space) + [TextPart(text, path)]
        space = ""
    return merged


def missing(text: str) -> set[str]:
    """Return the characters of a text that no font has."""
    return {c for c in set(text) if not _is_invisible(c) and not _has_font(c)}


def warn_of_missing(texts: Iterable[str], shapes: bool) -> None:
    """Warn, once per script, of characters that cannot be drawn or not in their right form.

    Args:
      texts: what is drawn.
      shapes: whether the drawing library joins and orders the letters of complex scripts.
    """
    characters = set().union(*texts)
    lost = {c for c in missing("".join(characters)) if (script(c) or c) not in _warned}
    if lost:
        _warned.update(script(c) or c for c in lost)
        _warned.update(script(c) or c for c in missing("".join(characters)))
        warnings.warn(
            "no installed font has some characters of class or file names, so pictures show boxes"
            f" in their place ({describe_missing(lost)})",
            GlyphWarning,
            stacklevel=2,
        )
    names = {script(c) for c in characters} & {*SHAPED}
    if names and not shapes and "shaping" not in _warned:
        _warned.add("shaping")
        warnings.warn(
            f"letters of {', '.join(sorted(name.capitalize() for name in names))} are not joined"
            " and ordered in pictures: install libfribidi (package libfribidi0)",
            GlyphWarning,
            stacklevel=2,
        )


def _in_fonts(line: str) -> Iterator[TextPart]:
    for word in re.findall(r"\s+|\S+", line):
        visible = frozenset(c for c in word if not _is_invisible(c) and not c.isspace())
        path = _font_with(visible)
        if path is not None or not visible:
            yield TextPart(word, path or primary_font())
            continue
        for character in word:
            if _is_invisible(character) or unicodedata.category(character).startswith("M"):
                yield TextPart(character, path)  # with the character before it
            else:
                path = _font_with(frozenset(character)) or primary_font()
                yield TextPart(character, path)


@cache
def _font_with(characters: frozenset[str]) -> str | None:
    """Return a font that has all characters, if possible one that was chosen before; or None."""
    first = primary_font()
    if first is None:
        return None
    for path in itertools.chain((first,), _chosen, installed_fonts()):
        if covers(path, characters):
            _chosen.setdefault(path)
            return path
    return None


@cache
def _has_font(character: str) -> bool:
    if primary_font() is None:  # the built-in font of Pillow has Latin letters
        return character.isascii()
    return character.isspace() or _font_with(frozenset(character)) is not None


def _is_invisible(character: str) -> bool:
    """Return whether the character only changes others, such as joiners and emoji selectors."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"
