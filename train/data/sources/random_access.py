"""Positioned reads of files from any number of threads and processes."""

import functools
import os
import threading
from typing import Any

from etils import epath

MAX_OPEN_FILES = 200  # ImageNet has 1,024, the limit of many systems for all files


class RandomAccessFile:
    """A file from which any number of threads may read at once.

    Files that are not local, such as those in buckets, are opened by epath.
    """

    def __init__(self, path: str):
        self._local = "://" not in path and hasattr(os, "pread")  # not on Windows
        self._file = open(path, "rb", buffering=0) if self._local else epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer at the end of the file."""
        if not self._local:
            # A file of fsspec would read ahead 5 MB, which is useless for random access.
            system = getattr(self._file, "fs", None)
            if hasattr(system, "cat_file"):
                return system.cat_file(self._file.path, start=offset, end=offset + length)
            return self.read_sequentially(offset, length)
        data = b""
        while len(data) < length:  # Linux returns at most 2 GiB, less if interrupted
            more = os.pread(self._file.fileno(), length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_sequentially(self, offset: int, length: int) -> bytes:
        """Return the same as ``read``, faster for increasing offsets of files not local."""
        if self._local:
            return self.read(offset, length)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()


class RandomAccessFiles:
    """The files of a data set, opened on first use; picklable.

    Records are read with ``pread`` instead of a memory map: a memory map is read while holding
    the GIL, so a page fault would stop every thread, a file that shrinks would end the process,
    and 1,024 maps keep 1,024 files open.
    """

    def __init__(self):
        # An evicted file is closed once no thread reads it.
        self._open = functools.lru_cache(MAX_OPEN_FILES)(RandomAccessFile)

    def __reduce__(self) -> tuple[Any, ...]:
        return RandomAccessFiles, ()

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of a file from ``offset``, fewer at its end."""
        return self._open(path).read(offset, length)
