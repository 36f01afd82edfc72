"""Random access to TFRecord files without TensorFlow.

A TFRecord file is a sequence of records, each ``length (uint64), masked CRC-32C of the length
(uint32), data, masked CRC-32C of the data (uint32)``. The offset of record i is known only after
a scan of all records before it. Each file is scanned once, and its offsets are kept in the
user's cache.
"""

import contextlib
import functools
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from flax_resnet.files import write_atomically
from train.runtime.errors import RunError
from train.runtime.files import user_cache_dir

HEADER = 12  # bytes of the length and its CRC
FOOTER = 4  # bytes of the data's CRC
THREADS = 16  # for scanning files; they mostly wait for the disk
MAX_OPEN_FILES = 200  # ImageNet has 1,024, the limit of many systems for all files
CACHE_VERSION = 1


class TFRecordFiles(Sequence):
    """Random access to the records of TFRecord files as bytes, from any thread or process.

    Record i is the i-th that TensorFlow reads from the same parts, one file after another.

    Records are read with ``pread`` instead of a memory map: a memory map is read while holding
    the GIL, so a page fault would stop every thread, and 1,024 maps keep 1,024 files open.

    Args:
      parts: the records to read of each file, in order, as TFDS's FileInstructions.

    Raises:
      RunError: a file is missing or corrupt, or has another number of records than expected.
    """

    def __init__(self, parts: Iterable[Any]):
        self._parts = [part for part in parts if part.take]
        expected = {part.filename: part.examples_in_shard for part in self._parts}
        starts = dict(zip(expected, _index_all(list(expected.items())), strict=True))
        self._ends = np.cumsum([part.take for part in self._parts])
        # Offsets of each record and of the one after it.
        pairs = [np.empty((0, 2), np.uint64)]
        for part in self._parts:
            offsets = starts[part.filename][part.skip : part.skip + part.take + 1]
            pairs.append(np.stack([offsets[:-1], offsets[1:]], axis=1))
        self._offsets = np.concatenate(pairs)
        self._open_files()

    def _open_files(self) -> None:
        # An evicted file is closed once no thread reads it.
        self._open = functools.lru_cache(MAX_OPEN_FILES)(_File)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_files()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> bytes:
        """Return the data of record ``index``."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        path = self.path(index)
        begin, end = self._offsets[index].tolist()
        try:
            record = self._open(path).read(begin, end - begin - FOOTER)
        except FileNotFoundError:
            raise file_error(path, "is missing") from None
        except OSError as error:
            raise RunError(f"cannot read {path}: {error}") from error
        if record[:8] != (end - begin - HEADER - FOOTER).to_bytes(8, "little"):
            raise RunError(f"{path} was changed while in use; start the command again")
        return record[HEADER:]

    def path(self, index: int) -> str:
        """Return the path of the file with record ``index``."""
        return self._parts[int(np.searchsorted(self._ends, index, side="right"))].filename


# Positioned reads --------------------------------------------------------------------------


class _File:
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
        modified = int(stat.mtime) if "://" in path else os.stat(path).st_mtime_ns
        key = (CACHE_VERSION, stat.length, modified)
        starts = _from_cache(path, key)
        if starts is None:
            starts = _scan(_File(path).read_sequentially, stat.length, path)
            _to_cache(path, key, starts)
    except FileNotFoundError:
        raise file_error(path, "is missing") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if len(starts) != records + 1:
        raise file_error(
            path, f"has {len(starts) - 1:,} records but dataset_info.json lists {records:,}"
        )
    return starts


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
        raise file_error(path, f"is corrupt at record {int(wrong.argmax()):,}")
    if position != size:
        raise file_error(path, f"ends in the middle of record {max(len(headers) - 1, 0):,}")
    return np.array(starts, np.uint64)


def file_error(path: str, problem: str) -> RunError:
    """Return the error for a corrupt or missing file of a prepared data set."""
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


def _cache_path(path: str) -> str:
    """Return the path of a file's cached offsets, which may be deleted at any time."""
    return user_cache_dir("tfrecord", hashlib.sha256(path.encode()).hexdigest()[:32])


def _cache_header(key: tuple[int, ...], numbers: bytes) -> bytes:
    return f"{' '.join(map(str, key))}\n{zlib.crc32(numbers)}\n".encode()


def _from_cache(path: str, key: tuple[int, ...]) -> np.ndarray | None:
    try:
        with open(_cache_path(path), "rb") as file:
            header = file.readline() + file.readline()
            numbers = file.read()
    except OSError:
        return None
    # If the header differs, the data file has changed or the cache is corrupt: scan again.
    return np.frombuffer(numbers, "<u8") if header == _cache_header(key, numbers) else None


def _to_cache(path: str, key: tuple[int, ...], starts: np.ndarray) -> None:
    target = _cache_path(path)
    numbers = starts.astype("<u8").tobytes()
    with contextlib.suppress(OSError):  # a full disk or no home directory: scan again next time
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_atomically(target, _cache_header(key, numbers) + numbers)
