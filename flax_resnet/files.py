"""Atomic writes: a file is complete or absent, even if the process is killed."""

import contextlib
import os
import secrets
from collections.abc import Callable


def write_atomically(path: str, content: str | bytes) -> None:
    """Write ``content``, text as UTF-8, to a temporary file and rename it to ``path``."""

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # otherwise the file could be empty after a power failure

    make_atomically(path, write)


def make_atomically(path: str, make: Callable[[str], None]) -> None:
    """Call ``make(temporary path)`` and rename the file it writes to ``path``."""
    # Other threads, processes and machines may write the same file.
    temporary = f"{path}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        make(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # a partial file would take space on a full disk
            os.unlink(temporary)
        raise
