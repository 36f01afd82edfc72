"""Building a data set in a temporary directory and publishing it once it is complete."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator

from train.runtime.errors import RunError, note, print_line
from train.runtime.files import Locked, directory_size, locked
from train.runtime.formatting import format_bytes


def check_space(folder: str, needed: int) -> None:
    """Print the free disk space of ``folder`` and check that it is sufficient.

    Args:
      folder: directory on the disk to check.
      needed: required bytes; 0 if unknown.

    Raises:
      RunError: fewer than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder!r} needs about {format_bytes(needed)} and its disk has"
            f" {format_bytes(free)} free; free some space, or choose another folder with"
            " --data_dir=FOLDER"
        )
    required = f"needs about {format_bytes(needed)}" if needed else "required space unknown"
    print_line(f"disk: {required}; {format_bytes(free)} free in {folder}")


@contextlib.contextmanager
def staging_dir(folder: str, name: str, needed: int = 0) -> Iterator[str]:
    """Yield a new directory inside ``folder`` to build ``name`` in, and delete it at the end.

    Leftovers of an earlier process that was killed are deleted first.

    Args:
      folder: directory of the data sets.
      name: name of the data set.
      needed: required bytes; 0 if unknown.

    Raises:
      RunError: another process is building ``name``, ``folder`` is not writable, or its disk has
        fewer than ``needed`` bytes free.
    """
    prefix = f"incomplete.{name.replace('/', '_')}."
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            lock = os.path.join(folder, f".{prefix}lock")
            exclusive = stack.enter_context(locked(lock))
            for path in glob.glob(os.path.join(glob.escape(folder), glob.escape(prefix) + "*")):
                _clean_up(path, remove=exclusive)
            check_space(folder, needed)
            staged = tempfile.mkdtemp(prefix=prefix, dir=folder)
        except Locked as error:
            raise RunError(
                f"{error} is preparing {name} in {folder!r}; wait until it has finished"
            ) from None
        except OSError as error:
            raise RunError(f"cannot write to {folder!r}: {error.strerror or error}") from error
        stack.callback(shutil.rmtree, staged, ignore_errors=True)
        yield staged


def report_unfinished(folder: str) -> None:
    """Report leftovers of TFDS's own command. It may still be running, so nothing is deleted."""
    for path in glob.glob(os.path.join(glob.escape(folder), "incomplete.*")):
        note(
            f"{path} holds {format_bytes(directory_size(path))} of an unfinished preparation"
            " by another program; delete it if none is running"
        )


def publish(built: str, destination: str) -> bool:
    """Move the directory ``built`` to ``destination``.

    Returns:
      False if another process published the data set first.
    """
    os.makedirs(os.path.dirname(destination), exist_ok=True)
    try:
        os.rename(built, destination)
    except OSError:
        if not os.path.exists(os.path.join(destination, "dataset_info.json")):
            raise
        return False
    return True


def _clean_up(path: str, remove: bool) -> None:
    size = format_bytes(directory_size(path))
    if remove:
        shutil.rmtree(path, ignore_errors=True)
        print_line(f"removed {size} of an interrupted preparation in {path}")
    else:
        note(f"{path} holds {size} of an unfinished preparation")
