"""Random access to TFRecord files without TensorFlow.

A TFRecord file is a sequence of records, each ``length (uint64), masked CRC-32C of the length
(uint32), data, masked CRC-32C of the data (uint32)``. The offset of record i is known only after
a scan of all records before it. Each file is scanned once, and its offsets are kept in the
user's cache.
"""

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

from train.runtime.errors import RunError
from train.runtime.files import user_cache_dir

HEADER = 12  # bytes of the length and its CRC
FOOTER = 4  # bytes of the data's CRC
THREADS = 16  # for scanning files; they mostly wait for the disk
MAX_OPEN_FILES = 200  # ImageNet has 1,024, the limit of many systems for all files
CACHE_VERSION = 1


class Part(Protocol):
    """A range of records of one file: TFDS's FileInstruction."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class TFRecordFiles(Sequence):
    """Random access to the records of TFRecord files as bytes, from any thread or process.

    Record i is the i-th that TensorFlow reads from the same parts, one file after another.

    Records are read with ``pread`` instead of a memory map: a memory map is read while holding
    the GIL, so a page fault would stop every thread, and 1,024 maps keep 1,024 files open.

    Args:
      parts: the records to read of each file, in order.

    Raises:
      RunError: a file is missing or damaged, or has another number of records than expected.
    """

    def __init__(self, parts: Iterable[Part]):
        self._parts = [part for part in parts if part.take]
        expected = {part.filename: part.examples_in_shard for part in self._parts}
        starts = dict(zip(expected, _index_all(list(expected.items())), strict=True))
        self._ends = np.cumsum([part.take for part in self._parts])
        # Offsets of each record and of the one after it.
        selected = [
            (starts[part.filename], slice(part.skip, part.skip + part.take + 1))
            for part in self._parts
        ]
        self._begin = _concatenate([offsets[records][:-1] for offsets, records in selected])
        self._next = _concatenate([offsets[records][1:] for offsets, records in selected])
        self._open_files()

    def _open_files(self) -> None:
        # An evicted file is closed once no thread reads it.
        self._open = functools.lru_cache(MAX_OPEN_FILES)(_open)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_files()

    def __len__(self) -> int:
        return len(self._begin)

    def __getitem__(self, index: int) -> bytes:
        """Return the data of record ``index``."""
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
            raise RunError(f"{path} was changed while in use; start the command again")
        return record[HEADER:]

    def path(self, index: int) -> str:
        """Return the path of the file with record ``index``."""
        return self._parts[int(np.searchsorted(self._ends, index, side="right"))].filename


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.uint64), *arrays])


# Positioned reads --------------------------------------------------------------------------


class _LocalFile:
    """A local file; any number of threads may read at once."""

    def __init__(self, path: str):
        self._descriptor = None
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer at the end of the file."""
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:  # Linux returns at most 2 GiB, less if interrupted
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def __del__(self):
        if self._descriptor is not None:
            os.close(self._descriptor)


class _RemoteFile:
    """The same for files that epath opens, such as those in buckets."""

    def __init__(self, path: str):
        self._file = epath.Path(path).open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        # A file of fsspec would read ahead 5 MB, which is useless for random access.
        system = getattr(self._file, "fs", None)
        if system is not None and hasattr(system, "cat_file"):
            return system.cat_file(self._file.path, start=offset, end=offset + length)
        return self.read_sequentially(offset, length)

    def read_sequentially(self, offset: int, length: int) -> bytes:
        """Return the same as ``read``, faster for increasing offsets."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()


def _open(path: str) -> _LocalFile | _RemoteFile:
    local = "://" not in path and hasattr(os, "pread")  # not on Windows
    return _LocalFile(path) if local else _RemoteFile(path)


# Offsets of records ------------------------------------------------------------------------


def _index_all(files: list[tuple[str, int]]) -> list[np.ndarray]:
    """Return :func:`_index` of many files, computed in parallel."""
    with ThreadPoolExecutor(THREADS) as pool:
        results = [pool.submit(_index, *file) for file in files]
        try:
            bar = tqdm(
                results, "indexing records", unit=" files", delay=3, disable=None, leave=False
            )
            return [result.result() for result in bar]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _index(path: str, records: int) -> np.ndarray:
    """Return the offsets of a file's records and of its end: uint64 ``(records + 1,)``."""
    try:
        stat = epath.Path(path).stat()
        key = (CACHE_VERSION, stat.length, _modified_at(path, stat.mtime))
        starts = _from_cache(path, key)
        if starts is None:
            file = _open(path)
            read = file.read if isinstance(file, _LocalFile) else file.read_sequentially
            starts = _scan(read, stat.length, path)
            _to_cache(path, key, starts)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if len(starts) != records + 1:
        raise damaged_file(
            path, f"has {len(starts) - 1:,} records but dataset_info.json lists {records:,}"
        )
    return starts


def _modified_at(path: str, seconds: int) -> int:
    """Return the modification time: in nanoseconds for local files, else ``seconds``."""
    return os.stat(path).st_mtime_ns if "://" not in path else int(seconds)


def _scan(read: Callable[[int, int], bytes], size: int, path: str) -> np.ndarray:
    starts, headers, position = [0], [], 0
    while position < size:
        header = read(position, HEADER)
        if len(header) < HEADER:
            break
        headers.append(header)
        position += HEADER + int.from_bytes(header[:8], "little") + FOOTER
        starts.append(position)
    # Checked together, since a Python loop over them would take longer than reading them.
    lengths = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, HEADER)
    wrong = masked_crc(lengths[:, :8]) != lengths[:, 8:].copy().view("<u4")[:, 0]
    if wrong.any():
        raise damaged_file(path, f"is damaged at record {int(wrong.argmax()):,}")
    if position != size:
        raise damaged_file(path, f"ends in the middle of record {max(len(headers) - 1, 0):,}")
    return np.array(starts, np.uint64)


def _missing(path: str) -> RunError:
    return damaged_file(path, "is missing")


def damaged_file(path: str, problem: str) -> RunError:
    """Return the error for a damaged or missing file of a prepared data set."""
    return RunError(f"{path} {problem}; copy it again, or delete the data set and prepare it again")


@functools.cache
def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))
    return table


def masked_crc(data: np.ndarray) -> np.ndarray:
    """Return TFRecord's masked CRC-32C of each row: uint8 ``(N, bytes)`` to uint32 ``(N,)``."""
    table = _crc_table()
    crc = np.full(len(data), 0xFFFFFFFF, np.uint32)
    for column in data.T:
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


# Cache: per data file, one file of two lines (its state, a checksum) and the offsets ---------


def cache_folder() -> str:
    """Return the directory of the cached offsets; any file in it may be deleted."""
    return user_cache_dir("tfrecord")


def _cache_path(path: str) -> str:
    return os.path.join(cache_folder(), hashlib.sha256(path.encode()).hexdigest()[:32])


def _cache_header(key: tuple[int, ...], numbers: bytes) -> bytes:
    return f"{' '.join(map(str, key))}\n{zlib.crc32(numbers)}\n".encode()


def _from_cache(path: str, key: tuple[int, ...]) -> np.ndarray | None:
    try:
        with open(_cache_path(path), "rb") as file:
            header = file.readline() + file.readline()
            numbers = file.read()
    except OSError:
        return None
    # If the header differs, the data file has changed or the cache is damaged: scan again.
    return np.frombuffer(numbers, "<u8") if header == _cache_header(key, numbers) else None


def _to_cache(path: str, key: tuple[int, ...], starts: np.ndarray) -> None:
    target = _cache_path(path)
    temporary = f"{target}.{os.getpid()}.{threading.get_ident()}"
    numbers = starts.astype("<u8").tobytes()
    try:
        os.makedirs(cache_folder(), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(_cache_header(key, numbers) + numbers)
        os.replace(temporary, target)
    except OSError:  # a full disk or no home directory: the next run scans again
        return
