"""Atomic writes, so that a file is complete or absent even after a kill, and bounded reads."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import BinaryIO


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


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; unlike ``open``, never wait for a pipe.

    Raises:
      OSError: it does not exist, is not a regular file, or cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", path)
    return file


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
      OSError: as for :func:`open_regular`, or it has more bytes, or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"More than {max_bytes:,} bytes", path)
    return content
