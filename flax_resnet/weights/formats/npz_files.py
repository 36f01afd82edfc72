"""Read NumPy's ``.npz`` archives."""

import io
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from flax_resnet.text import truncate
from flax_resnet.weights.tensors import BFLOAT16, Tensor, WeightFile, WeightsError

# By version of the format: bytes of the header's length, which follows the magic of 8 bytes.
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
_PARSERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MAX_HEADER = 10_000  # as in NumPy, which parses it as Python


def read_npz(path: Path, archive: zipfile.ZipFile) -> WeightFile:
    """Read the names, shapes and types of the arrays; values are read on demand.

    Raises:
      WeightsError: an array has Python objects.
      Exception: the archive is corrupt; whatever zipfile and NumPy raise.
    """
    tensors = {}
    for entry in archive.namelist():
        name = entry.removesuffix(".npy")
        if archive.getinfo(entry).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{truncate(name)} is compressed in a way that NumPy never uses")
        with archive.open(entry) as file:
            shape, stored, _ = read_header(file, name)
        if stored.hasobject:
            raise WeightsError(
                f"{path}: {truncate(name)} contains Python objects, which cannot be read without"
                " running code: refused. Save plain arrays with numpy.savez"
            )
        # NumPy has no name for bfloat16 and writes it as a 2-byte void type.
        dtype = BFLOAT16 if stored == np.dtype("V2") else stored

        def read(entry: str = entry, dtype: np.dtype = dtype) -> np.ndarray:
            with archive.open(entry) as file:
                return np.lib.format.read_array(file, allow_pickle=False).view(dtype)

        tensors[name] = Tensor(shape, dtype, read)
    return WeightFile("NumPy npz", tensors)


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Return the shape and type of an array, and whether it is in Fortran's order.

    Args:
      file: a file in NumPy's ``.npy`` format, at its start; afterwards at the values.
      name: name of the array, for errors.

    Raises:
      ValueError: the header is corrupt or too long.
    """
    version = np.lib.format.read_magic(file)
    if version not in _LENGTH_BYTES:
        raise ValueError(f"{truncate(name)} has version {version[0]}.{version[1]} of the format")
    prefix = file.read(_LENGTH_BYTES[version])
    length = int.from_bytes(prefix, "little")
    if length > _MAX_HEADER:  # NumPy reads it before it compares its length
        raise ValueError(f"{truncate(name)} has a header of {length:,} bytes")
    shape, fortran, dtype = _PARSERS[version](io.BytesIO(prefix + file.read(length)))
    return shape, dtype, fortran
