"""The folder for temporary files of an export, beside the exported file."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator

from train.runtime.files import Locked, existing_parent, locked, writing

_LOCK = ".lock"


@contextlib.contextmanager
def staging_folder(output: str) -> Iterator[str]:
    """Make a folder for the temporary files of an export, and remove it at the end.

    Such folders of killed exports with the same name are removed, too. New folders around
    ``output`` are removed if they are still empty at the end.

    Yields:
      Its path, on the same file system as ``output``.

    Raises:
      RunError: it cannot be made.
    """
    folder, name = os.path.split(os.path.abspath(output))
    existing, prefix = existing_parent(folder), f".{name}."
    with writing(output):
        os.makedirs(folder, exist_ok=True)
        _remove_unused(os.path.join(folder, prefix))
        staging = tempfile.mkdtemp(prefix=prefix, dir=folder)
    try:
        with locked(os.path.join(staging, _LOCK)):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(folder, existing)


def _remove_unused(prefix: str) -> None:
    """Remove the folders with a prefix and a lock that no process holds."""
    for lock in glob.glob(os.path.join(f"{glob.escape(prefix)}*", _LOCK)):
        with contextlib.suppress(Locked, OSError), locked(lock) as has_locks:
            if has_locks:
                shutil.rmtree(os.path.dirname(lock), ignore_errors=True)


def _remove_empty(folder: str, existing: str) -> None:
    """Remove a folder and those above it, up to ``existing``, as long as they are empty."""
    while folder != existing:
        try:
            os.rmdir(folder)
        except OSError:  # it has files
            return
        folder = os.path.dirname(folder)
