"""Arrays in ``.npy`` and ``.npz`` files, whose rows are read on access."""

import contextlib
import math
import os
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.files import open_regular
from flax_resnet.text import error_reason, truncate
from flax_resnet.weights.formats.limits import open_zip
from flax_resnet.weights.formats.npz_files import read_header
from train.data.sources.random_access import RandomAccessFiles
from train.runtime.errors import RunError

# Drawings may be compressed to 1 %; an archive that claims more is a bomb.
_MAX_RATIO, _FREE_BYTES = 100, 2**26
_ZIP_HEADER = 30  # bytes of an entry's own header before its name


class ArrayFile(Sequence):
    """An array in a file. Rows are read on access, those of a compressed array all at once.

    Attributes:
      path: the file.
      shape: of the array.
      dtype: of its values.

    Args:
      path: the file.
      entry: name in an archive; ``""`` for a ``.npy`` file.
      file: the content in the ``.npy`` format, at its start.
      start: position of the content in the file; None if it is compressed.

    Raises:
      ValueError: the content is not an array that can be read.
    """

    def __init__(self, path: str, entry: str, file: Any, start: int | None):
        self.path, self._entry = path, entry
        self.shape, self.dtype, fortran = read_header(file, os.path.basename(entry or path))
        if self.dtype.hasobject:
            raise ValueError(
                f"{self.where} contains Python objects, which cannot be read without running"
                " code; save arrays of numbers or text"
            )
        if fortran and len(self.shape) > 1:
            raise ValueError(
                f"{self.where} is in Fortran's order; save numpy.ascontiguousarray(array)"
            )
        self._start = None if start is None else start + file.tell()
        self._files = RandomAccessFiles()
        self._restore()

    def _restore(self) -> None:
        self._loaded: np.ndarray | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in vars(self).items() if name not in ("_loaded", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._restore()

    @property
    def where(self) -> str:
        """The array, for messages."""
        return f"{self.path}: {truncate(self._entry)}" if self._entry else self.path

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a row."""
        if self._start is None:
            return self._decompressed()[index]
        row = self.nbytes // len(self)
        return self._read(index * row, row).reshape(self.shape[1:])

    def values(self) -> np.ndarray:
        """Return the whole array."""
        if self._start is None:
            return self._decompressed()
        return self._read(0, self.nbytes).reshape(self.shape)

    def _read(self, offset: int, length: int) -> np.ndarray:
        with _errors(self.path):
            data = self._files.read(self.path, self._start + offset, length)
            if len(data) != length:
                raise ValueError("it was truncated while in use")
        return np.frombuffer(data, self.dtype)

    def _decompressed(self) -> np.ndarray:
        with self._lock, _errors(self.path):
            if self._loaded is None:
                with open_zip(Path(self.path)) as archive, archive.open(self._entry) as file:
                    self._loaded = np.lib.format.read_array(file, allow_pickle=False)
                if (self._loaded.shape, self._loaded.dtype) != (self.shape, self.dtype):
                    raise ValueError("it was changed while in use")
            return self._loaded


def open_arrays(path: str) -> dict[str, ArrayFile]:
    """Return the arrays of a ``.npz`` file by name, or that of a ``.npy`` file as ``""``.

    Raises:
      RunError: the file is missing, corrupt, or holds Python objects.
    """
    with _errors(path):
        if path.endswith(".npz"):
            return _open_archive(path)
        with open_regular(path) as file:
            array = ArrayFile(path, "", file, 0)
            _check_end(array, os.fstat(file.fileno()).st_size)
        return {"": array}


def _open_archive(path: str) -> dict[str, ArrayFile]:
    open_regular(path).close()  # not a pipe
    arrays = {}
    size = os.path.getsize(path)
    with open_zip(Path(path)) as archive, open(path, "rb") as raw:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                raise ValueError(f"{truncate(info.filename)} is not an array")
            name = info.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it has two arrays named {truncate(name)}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{truncate(name)} is compressed in a way that NumPy never uses")
            start = None
            if info.compress_type == zipfile.ZIP_STORED:
                start = _start_of(info, raw)
            with archive.open(info) as file:
                arrays[name] = ArrayFile(path, info.filename, file, start)
            _check_end(arrays[name], size)
    claimed = sum(array.nbytes for array in arrays.values())
    if claimed > _MAX_RATIO * size + _FREE_BYTES:
        raise ValueError(
            f"it has {size:,} bytes but its arrays claim {claimed:,}; save them with numpy.savez"
        )
    return arrays


def _start_of(info: zipfile.ZipInfo, raw: Any) -> int:
    """Return the position of an entry's content, after its own header."""
    raw.seek(info.header_offset)
    header = raw.read(_ZIP_HEADER)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + _ZIP_HEADER + name + extra


def _check_end(array: ArrayFile, size: int) -> None:
    """Raise ValueError if the values do not fit into the file."""
    if array._start is not None and array._start + array.nbytes > size:
        raise ValueError(f"{array.where} is truncated")


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turn the errors of NumPy, zipfile and the system into a RunError."""
    try:
        yield
    except RunError:
        raise
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise RunError(
            f"{path} does not fit in memory; save it with numpy.savez, uncompressed"
        ) from error
    except Exception as error:  # whatever zipfile and NumPy raise
        reason = error_reason(error)
        raise RunError(reason if reason.startswith(path) else f"{path}: {reason}") from error
