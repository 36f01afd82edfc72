"""Building a data set beside its place and moving it there once it is whole."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator

from train.runtime.errors import RunError
from train.runtime.files import Locked, locked


def size(number: float) -> str:
    """A number of bytes for people: ``"6.7 GB"``."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    whole = units[0] == "bytes" or number >= 99.5
    return f"{number:.0f} {units[0]}" if whole else f"{number:.1f} {units[0]}"


def size_of(folder: str) -> int:
    """Bytes of the files in ``folder`` and below."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # may vanish meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def check_space(folder: str, needed: int) -> None:
    """Raises RunError where the disk of ``folder`` has fewer than ``needed`` bytes free.

    ``needed`` of 0 means that it is not known.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder!r} needs about {size(needed)} and its disk has {size(free)} free; make"
            " room, or name a folder elsewhere with --data_dir=FOLDER"
        )
    wanted = f"needs about {size(needed)}" if needed else "it is not known how much it needs"
    print(f"disk: {wanted}; {size(free)} free in {folder}", flush=True)


@contextlib.contextmanager
def staging(folder: str, name: str, needed: int = 0) -> Iterator[str]:
    """Gives a new folder inside ``folder`` to build ``name`` in, and removes it at the end.

    What an earlier process left that was killed is removed first. Raises RunError while
    another process builds ``name``, where ``folder`` cannot be written, and where its disk has
    fewer than ``needed`` bytes free.
    """
    prefix = f"incomplete.{name.replace('/', '_')}."
    with contextlib.ExitStack() as at_end:
        try:
            os.makedirs(folder, exist_ok=True)
            lock = os.path.join(folder, f".{prefix}lock")
            alone = at_end.enter_context(locked(lock))
            for left in glob.glob(os.path.join(glob.escape(folder), glob.escape(prefix) + "*")):
                _clear(left, remove=alone)
            check_space(folder, needed)
            own = tempfile.mkdtemp(prefix=prefix, dir=folder)
        except Locked as error:
            raise RunError(
                f"{error} is preparing {name} in {folder!r}; wait until it is done"
            ) from None
        except OSError as error:
            raise RunError(f"cannot write to {folder!r}: {error.strerror or error}") from error
        at_end.callback(shutil.rmtree, own, ignore_errors=True)
        yield own


def report_unfinished(folder: str) -> None:
    """Tells what TFDS's own command left unfinished. It may be running, so nothing is removed."""
    for left in glob.glob(os.path.join(glob.escape(folder), "incomplete.*")):
        print(
            f"note: {left} holds {size(size_of(left))} of a preparation by other means that has"
            " not ended; if none is running, delete it",
            flush=True,
        )


def publish(built: str, place: str) -> bool:
    """Moves the folder ``built`` to ``place``; False where another process was first."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    try:
        os.rename(built, place)
    except OSError:
        if not os.path.exists(os.path.join(place, "dataset_info.json")):
            raise
        return False
    return True


def _clear(left: str, remove: bool) -> None:
    held = size(size_of(left))
    if remove:
        shutil.rmtree(left, ignore_errors=True)
        print(f"removed {held} that an interrupted preparation left in {left}", flush=True)
    else:
        print(f"note: {left} holds {held} of an unfinished preparation", flush=True)
