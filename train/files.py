"""Files that are whole or not there, whenever the process dies."""

from __future__ import annotations

import os
from collections.abc import Callable


def write_atomically(path: str, text: str) -> None:
    """Writes a text file beside its place and moves it there."""

    def write(beside: str) -> None:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)

    make_atomically(path, write)


def make_atomically(path: str, make: Callable[[str], None]) -> None:
    """As above, of whatever ``make`` writes to the path that it is given."""
    beside = f"{path}.tmp"
    make(beside)
    os.replace(beside, path)
