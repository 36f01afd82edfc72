"""Names as a terminal or a picture can show them: class and file names may hold anything."""

from __future__ import annotations

import re

# What ends a line, moves the cursor, or turns the direction of what follows.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)

MOST_CAPTION = 40  # characters of a name above a picture


def one_line(text: str) -> str:
    """The text with control characters as Python spells them, such as ``\\n``."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def shortened(text: str, most: int) -> str:
    """At most so many characters in one line; an ellipsis shows that there were more."""
    text = one_line(text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def clock(seconds: float) -> str:
    """A time for people: ``"3:07"``, ``"1:03:07"``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_bytes(number: float) -> str:
    """Return a number of bytes with a unit, such as ``"6.7 GB"``."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    digits = 0 if units[0] == "bytes" or number >= 99.5 else 1
    return f"{number:.{digits}f} {units[0]}"
