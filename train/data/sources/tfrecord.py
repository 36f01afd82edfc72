"""Random access to TFRecord files without TensorFlow.

A TFRecord file is a sequence of records, each ``length (uint64), masked CRC-32C of the length
(uint32), data, masked CRC-32C of the data (uint32)``. The offset of record i is known only after
a scan of all records before it. Each file is scanned once, and its offsets are kept in the
user's cache.
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from train.data.sources.index_cache import index_in_parallel, load_index, save_index
from train.data.sources.random_access import RandomAccessFile, RandomAccessFiles
from train.runtime.errors import RunError

HEADER = 12  # bytes of the length and its CRC
FOOTER = 4  # bytes of the data's CRC
CACHE_VERSION = 1


class TFRecordFiles(Sequence):
    """Random access to the records of TFRecord files as bytes, from any thread or process.

    Record i is the i-th that TensorFlow reads from the same parts, one file after another.

    Args:
      parts: the records to read of each file, in order, as TFDS's FileInstructions.

    Raises:
      RunError: a file is missing or corrupt, or has another number of records than expected.
    """

    def __init__(self, parts: Iterable[Any]):
        self._parts = [part for part in parts if part.take]
        expected = {part.filename: part.examples_in_shard for part in self._parts}
        starts = dict(
            zip(
                expected,
                index_in_parallel(lambda file: _index(*file), expected.items(), "indexing records"),
                strict=True,
            )
        )
        self._ends = np.cumsum([part.take for part in self._parts])
        # Offsets of each record and of the one after it.
        pairs = [np.empty((0, 2), np.uint64)]
        for part in self._parts:
            offsets = starts[part.filename][part.skip : part.skip + part.take + 1]
            pairs.append(np.stack([offsets[:-1], offsets[1:]], axis=1))
        self._offsets = np.concatenate(pairs)
        self._files = RandomAccessFiles()

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
            record = self._files.read(path, begin, end - begin - FOOTER)
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


# Offsets of records ------------------------------------------------------------------------


def _index(path: str, records: int) -> np.ndarray:
    """Return the offsets of a file's records and of its end: uint64 ``(records + 1,)``."""
    try:
        stat = epath.Path(path).stat()
        modified = int(stat.mtime) if "://" in path else os.stat(path).st_mtime_ns
        key = (CACHE_VERSION, stat.length, modified)
        starts = load_index("tfrecord", path, key)
        if starts is None:
            starts = _scan(RandomAccessFile(path).read_sequentially, stat.length, path)
            save_index("tfrecord", path, key, starts.astype("<u8").tobytes())
        else:
            starts = np.frombuffer(starts, "<u8")
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
