"""Write errors, file locks and sizes, independent of what the files hold."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from train.runtime.errors import RunError

ROOT = Path(__file__).absolute().parents[2]  # contains the packages

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def user_cache_dir(*parts: str) -> str:
    """Return a path in this project's folder of the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):  # a user without a home: not a folder of that name
        base = os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return os.path.join(base, "flax_resnet", *parts)


def directory_size(folder: str) -> int:
    """Return the total size in bytes of all files below ``folder``."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # deleted in the meantime
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn an OSError of the block into a one-line RunError that ``name`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {name}: {error.strerror or error}") from error


def existing_parent(folder: str) -> str:
    """Return the absolute path of the folder or, if it does not exist, of the one above."""
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


def check_writable(folder: str, name: str) -> None:
    """Raise RunError unless ``folder`` is writable or can be created.

    Long commands call it first, so that their result is not lost at the end. It creates nothing.

    Args:
      folder: the folder to check.
      name: the file to write, for the message.
    """
    existing = existing_parent(folder)
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK):
        reason = "cannot be written" if os.path.isdir(existing) else "is not a folder"
        raise RunError(f"cannot write {name}: {existing!r} {reason}")


def append_line(path: str, line: str) -> None:
    """Append a line to a text file, whose last line may lack its end after a kill.

    Raises:
      RunError: the file cannot be written.
    """
    with writing(path), open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        missing = b"\n" if end and file.read(1) != b"\n" else b""
        file.write(missing + line.encode("utf-8", "backslashreplace") + b"\n")


def check_operations(folder: str) -> None:
    """Raise OSError unless files and folders can be written, replaced and renamed in ``folder``.

    Permissions do not show that: the file system may lack an operation, space or a quota.
    """
    # As long as the paths of a checkpoint that is being written.
    with tempfile.TemporaryDirectory(prefix=f"probe{'_' * 80}", dir=folder) as probe:
        one, other = os.path.join(probe, "one"), os.path.join(probe, "other")
        for path in (one, other):
            with open(path, "wb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        os.replace(one, other)
        os.makedirs(os.path.join(one, "inside"))
        os.rename(one, os.path.join(probe, "third"))


class Locked(Exception):
    """Another process holds the lock; the text names it."""


@contextlib.contextmanager
def locked(path: str) -> Iterator[bool]:
    """Hold a lock, which the system releases when the process ends.

    Yields:
      False if the file system has no locks, else True.

    Raises:
      Locked: another process holds the lock.
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
            if not _is_at(file.fileno(), path):  # removed by its previous holder
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
