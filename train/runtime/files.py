"""Files that are whole or not there whenever the process dies, and locks that die with it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from train.runtime.errors import RunError

ROOT = Path(__file__).absolute().parents[2]  # of the packages, which lie side by side

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Makes a RunError, in one line, of what the file system says against writing ``what``."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {what}: {error.strerror or error}") from error


def check_writable(folder: str, what: str) -> None:
    """Raises RunError unless ``folder`` may be written, or made where it is not there.

    So that what takes long does not come to nothing at its end. ``what`` is what will be written.
    """
    above = os.path.abspath(folder)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above) or not os.access(above, os.W_OK):
        reason = "is not a folder" if not os.path.isdir(above) else "cannot be written"
        raise RunError(f"cannot write {what}: {above!r} {reason}")


def append_line(path: str, line: str) -> None:
    """Adds a line to a text file, whose last one a kill may have cut short. Raises RunError."""
    with writing(path), open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        missing = b"\n" if end and file.read(1) != b"\n" else b""
        file.write(missing + line.encode("utf-8", "backslashreplace") + b"\n")


class Locked(Exception):
    """Another process holds the lock; the text says which."""


@contextlib.contextmanager
def locked(path: str) -> Iterator[bool]:
    """Holds a lock, a file that goes with its process. False where the file system has no locks.

    Raises Locked, with who holds it, where another process does.
    """
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            try:
                if fcntl is None:
                    raise OSError("no locks")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Locked(file.read().strip() or "another process") from None
            except OSError:  # some network file systems
                yield False
                return
            if not _is_at(file.fileno(), path):  # its last holder removed it meanwhile
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            try:
                yield True
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def directory_size(folder: str) -> int:
    """Return the total size in bytes of all files below ``folder``."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # deleted in the meantime
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
