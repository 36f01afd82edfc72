"""Random access to TFRecord files without TensorFlow.

A TFRecord file is a chain of records, each ``length (uint64), masked CRC-32C of the length
(uint32), data, masked CRC-32C of the data (uint32)``, so where record i begins is known only
once all before it were walked over. That is done once a file and kept in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from etils import epath
from tqdm import tqdm

from train.runtime.compilation_cache import user_cache
from train.runtime.errors import RunError

HEADER = 12  # bytes of the length and its CRC
FOOTER = 4  # bytes of the data's CRC
THREADS = 16  # that walk over files; they mostly wait for the disk
OPEN_FILES = 200  # kept open at most: ImageNet has 1,024, which is all that many systems allow
CACHE_VERSION = 1


class Part(Protocol):
    """Some records of one file: TFDS's FileInstruction."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class TFRecordFiles(Sequence):
    """The records of TFRecord files as bytes, by number, from any thread or process.

    Record i is the i-th that TensorFlow reads from the same parts, one file after another.

    Files are read at the record's place with ``pread`` and not mapped into memory: a page
    that has to come from the disk would stop every thread, since a memory map is read under
    the interpreter's lock, and 1,024 maps keep 1,024 files open.

    Args:
      parts: which records of which files, in order.

    Raises RunError, naming the file, where one is missing, damaged or not as long as it
    should be.
    """

    def __init__(self, parts: Iterable[Part]):
        self._parts = [part for part in parts if part.take]
        expected = {part.filename: part.examples_in_shard for part in self._parts}
        starts = dict(zip(expected, _index_all(list(expected.items())), strict=True))
        self._ends = np.cumsum([part.take for part in self._parts])
        # Of each record, where it begins and where the next one does.
        chosen = [
            (starts[part.filename], slice(part.skip, part.skip + part.take + 1))
            for part in self._parts
        ]
        self._begin = _concatenate([all_[where][:-1] for all_, where in chosen])
        self._next = _concatenate([all_[where][1:] for all_, where in chosen])
        self._open_files()

    def _open_files(self) -> None:
        # A file that drops out closes as soon as no thread reads it any more.
        self._open = functools.lru_cache(OPEN_FILES)(_open)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_files()

    def __len__(self) -> int:
        return len(self._begin)

    def __getitem__(self, index: int) -> bytes:
        """The data of record ``index``."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        path = self.path(index)
        begin, end = int(self._begin[index]), int(self._next[index])
        try:
            record = self._open(path).read(begin, end - begin - FOOTER)
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise RunError(f"cannot read {path}: {error}") from error
        if record[:8] != (end - begin - HEADER - FOOTER).to_bytes(8, "little"):
            raise RunError(f"{path} was changed while it was in use; start again")
        return record[HEADER:]

    def path(self, index: int) -> str:
        """The file that holds record ``index``."""
        return self._parts[int(np.searchsorted(self._ends, index, side="right"))].filename


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.uint64), *arrays])


# Reading at a place


class _LocalFile:
    """Reads at a place; any number of threads at once."""

    def __init__(self, path: str):
        self._descriptor = None
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer where the file ends."""
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:  # Linux gives at most 2 GiB, and less when interrupted
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def __del__(self):
        if self._descriptor is not None:
            os.close(self._descriptor)


class _OtherFile:
    """The same for whatever else epath opens, such as buckets."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        # A file of fsspec would read 5 MB ahead, which is of no use at random places.
        system = getattr(self._file, "fs", None)
        if system is not None and hasattr(system, "cat_file"):
            return system.cat_file(self._file.path, start=offset, end=offset + length)
        return self.read_on(offset, length)

    def read_on(self, offset: int, length: int) -> bytes:
        """As ``read``, and better where the places follow each other."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()


def _open(path: str) -> _LocalFile | _OtherFile:
    local = "://" not in path and hasattr(os, "pread")  # not on Windows
    return _LocalFile(path) if local else _OtherFile(path)


# Where records begin


def _index_all(files: list[tuple[str, int]]) -> list[np.ndarray]:
    """:func:`_index` of many files at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        results = [pool.submit(_index, *file) for file in files]
        try:
            shown = tqdm(
                results, "looking up records", unit=" files", delay=3, disable=None, leave=False
            )
            return [result.result() for result in shown]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _index(path: str, records: int) -> np.ndarray:
    """Where the records of a file begin, and its end: uint64 ``(records + 1,)``."""
    try:
        stat = epath.Path(path).stat()
        key = (CACHE_VERSION, stat.length, _changed(path, stat.mtime))
        starts = _from_cache(path, key)
        if starts is None:
            file = _open(path)
            read = file.read if isinstance(file, _LocalFile) else file.read_on
            starts = _walk(read, stat.length, path)
            _to_cache(path, key, starts)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if len(starts) != records + 1:
        raise _damaged(
            path, f"holds {len(starts) - 1:,} records where dataset_info.json counts {records:,}"
        )
    return starts


def _changed(path: str, seconds: int) -> int:
    """When the file was last changed, in nanoseconds where that is known."""
    return os.stat(path).st_mtime_ns if "://" not in path else int(seconds)


def _walk(read: Callable[[int, int], bytes], size: int, path: str) -> np.ndarray:
    starts, headers, position = [0], [], 0
    while position < size:
        header = read(position, HEADER)
        if len(header) < HEADER:
            break
        headers.append(header)
        position += HEADER + int.from_bytes(header[:8], "little") + FOOTER
        starts.append(position)
    # Checked together: one at a time in Python would take longer than reading them.
    lengths = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, HEADER)
    wrong = masked_crc(lengths[:, :8]) != lengths[:, 8:].copy().view("<u4")[:, 0]
    if wrong.any():
        raise _damaged(path, f"is damaged at record {int(wrong.argmax()):,}")
    if position != size:
        raise _damaged(path, f"ends in the middle of record {max(len(headers) - 1, 0):,}")
    return np.array(starts, np.uint64)


def _missing(path: str) -> RunError:
    return _damaged(path, "is missing")


def _damaged(path: str, what: str) -> RunError:
    return RunError(f"{path} {what}; copy it anew, or delete the data set and prepare it again")


@functools.cache
def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))
    return table


def masked_crc(data: np.ndarray) -> np.ndarray:
    """TFRecord's masked CRC-32C of each row: uint8 ``(N, bytes)`` to uint32 ``(N,)``."""
    table = _crc_table()
    crc = np.full(len(data), 0xFFFFFFFF, np.uint32)
    for column in data.T:
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


# The cache: a file for each data file, of two lines (what it is about, a checksum) and numbers


def cache_folder() -> str:
    """Where the places of records are kept; any file in it can be deleted."""
    return user_cache("tfrecord")


def _cache_path(path: str) -> str:
    return os.path.join(cache_folder(), hashlib.sha256(path.encode()).hexdigest()[:32])


def _seal(key: tuple[int, ...], numbers: bytes) -> bytes:
    return f"{' '.join(map(str, key))}\n{zlib.crc32(numbers)}\n".encode()


def _from_cache(path: str, key: tuple[int, ...]) -> np.ndarray | None:
    try:
        with open(_cache_path(path), "rb") as file:
            seal = file.readline() + file.readline()
            numbers = file.read()
    except OSError:
        return None
    # Of another state of the file, or damaged: walk over it again.
    return np.frombuffer(numbers, "<u8") if seal == _seal(key, numbers) else None


def _to_cache(path: str, key: tuple[int, ...], starts: np.ndarray) -> None:
    target = _cache_path(path)
    temporary = f"{target}.{os.getpid()}.{threading.get_ident()}"
    numbers = starts.astype("<u8").tobytes()
    try:
        os.makedirs(cache_folder(), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(_seal(key, numbers) + numbers)
        os.replace(temporary, target)
    except OSError:  # a full disk or no home: the next run walks again
        return
