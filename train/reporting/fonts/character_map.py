"""The characters that a font file has, read from its ``cmap`` table.

A font library would decode every mapping, which takes 0.3 s for a Chinese font; this looks up only
the characters that are needed. The formats are those of the OpenType specification, chapter cmap.
"""

import struct
from collections.abc import Callable, Iterable
from functools import cache
from typing import BinaryIO

_COLLECTION = b"ttcf"
_MAX_TABLE_BYTES = 16 << 20
Lookup = Callable[[int], bool]  # of a code point


def covered(path: str, characters: Iterable[str]) -> set[str]:
    """Return the characters that a font has; none if the file is not a readable font.

    Args:
      path: file of one font, or of a collection, of which this is the first font.
      characters: single characters.
    """
    has = _lookup(path)
    return {character for character in characters if has(ord(character))}


def covers(path: str, characters: Iterable[str]) -> bool:
    """Return whether a font has all characters."""
    has = _lookup(path)
    return all(has(ord(character)) for character in characters)


@cache
def _lookup(path: str) -> Lookup:
    try:
        with open(path, "rb") as file:
            find = _best_subtable(_read_table(file, b"cmap"))
    except (OSError, struct.error, ValueError):
        return lambda _: False

    def has(code: int) -> bool:
        try:
            return find(code)
        except struct.error:  # the table ends before its last group
            return False

    return has


def _read_table(file: BinaryIO, tag: bytes) -> bytes:
    start = 0
    if file.read(4) == _COLLECTION:
        file.seek(12)
        (start,) = struct.unpack(">I", file.read(4))
    file.seek(start + 4)
    (count,) = struct.unpack(">H", file.read(2))
    file.seek(start + 12)
    for _ in range(count):
        name, _, offset, length = struct.unpack(">4sIII", file.read(16))
        if name == tag and length <= _MAX_TABLE_BYTES:
            file.seek(offset)
            return file.read(length)
    raise ValueError(f"no table {tag!r}")


def _best_subtable(table: bytes) -> Lookup:
    """Return the lookup of the Unicode subtable with most characters: all planes before one."""
    (count,) = struct.unpack_from(">H", table, 2)
    places = {}
    for number in range(count):
        platform, encoding, offset = struct.unpack_from(">HHI", table, 4 + 8 * number)
        (form,) = struct.unpack_from(">H", table, offset)
        is_unicode = platform == 0 or (platform == 3 and encoding in (1, 10))
        if is_unicode and form in (4, 12):
            places[form] = offset
    if 12 in places:
        return _groups(table, places[12])
    if 4 in places:
        return _segments(table, places[4])
    raise ValueError("no Unicode subtable")


def _groups(table: bytes, offset: int) -> Lookup:
    """Format 12: sorted groups of consecutive code points."""
    (count,) = struct.unpack_from(">I", table, offset + 12)

    def has(code: int) -> bool:
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            first, last, glyph = struct.unpack_from(">III", table, offset + 16 + 12 * middle)
            if code < first:
                high = middle
            elif code > last:
                low = middle + 1
            else:
                return glyph + code - first > 0
        return False

    return has


def _segments(table: bytes, offset: int) -> Lookup:
    """Format 4: segments of the first 65,536 code points, whose glyphs are listed or consecutive.

    In a segment with a list, glyph 0 stands for a character that the font does not have.
    """
    (twice,) = struct.unpack_from(">H", table, offset + 6)
    count = twice // 2
    ends, deltas = offset + 14, offset + 16 + 2 * twice
    starts, offsets = offset + 16 + twice, offset + 16 + 3 * twice

    def value(place: int) -> int:
        return struct.unpack_from(">H", table, place)[0]

    def has(code: int) -> bool:
        low, high = 0, count
        while low < high:  # the first segment that ends at the code or later
            middle = (low + high) // 2
            if value(ends + 2 * middle) < code:
                low = middle + 1
            else:
                high = middle
        if low == count or value(starts + 2 * low) > code or code > 0xFFFF:
            return False
        place = offsets + 2 * low
        listed = value(place)
        if not listed:
            return (code + value(deltas + 2 * low)) & 0xFFFF > 0
        return value(place + listed + 2 * (code - value(starts + 2 * low))) > 0

    return has
