"""Files that are complete or absent whenever the process ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable


def write_atomically(path: str, text: str) -> None:
    """Writes a text file beside its place and moves it there."""

    def write(beside: str) -> None:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or it might be empty after the power has failed

    make_atomically(path, write)


def make_atomically(path: str, make: Callable[[str], None]) -> None:
    """As above, of whatever ``make`` writes to the path that it is given."""
    beside = f"{path}.{os.getpid()}.tmp"  # another process may write the same file
    try:
        make(beside)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what is half written takes room on a full disk
            os.unlink(beside)
        raise
