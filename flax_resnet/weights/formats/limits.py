"""Limits that keep the work on a weight file in proportion to the file's size.

Formats can claim more than they hold: a megabyte of a pickle makes a million objects, a megabyte
of a zip archive's directory 20,000 entries, and all may refer to the same values. A file is
therefore refused before it takes 4 times its size plus 100 MB of memory, or 2 s per 100 MB.
Networks stay far below these limits: ResNet-152 has 932 tensors.
"""

import io
import math
import os
import zipfile
from pathlib import Path

from flax_resnet.text import truncate
from flax_resnet.weights.tensors import WeightFile, WeightsError, is_valid_shape

_MAX_NAME = 500  # characters of a tensor's name


def max_entries(size: int) -> int:
    """Return how many tensors, groups or archive entries a file of ``size`` bytes may have."""
    return 10_000 + size // 20_000


def check_table(length: int, size: int, table: str) -> None:
    """Raise ValueError if the table that lists the tensors is longer than any network's.

    Args:
      length: of the table, in bytes.
      size: of the file, in bytes.
      table: what the format calls it.
    """
    if length > (limit := 200 * max_entries(size)):
        raise ValueError(f"its {table} has {length:,} bytes, more than {limit:,}")


def check_count(number: int, size: int, noun: str) -> None:
    """Raise ValueError if a file of ``size`` bytes has more entries than any network."""
    if number > (limit := max_entries(size)):
        raise ValueError(f"it has more than {limit:,} {noun}")


def check_tensors(file: WeightFile, path: Path) -> None:
    """Raise WeightsError if the tensors' names, shapes or number are not those of weights."""
    size = path.stat().st_size
    check_count(len(file.tensors), size, "tensors")
    claimed = 0
    for name, tensor in file.tensors.items():
        if len(name) > _MAX_NAME:
            raise WeightsError(f"{path} has a tensor with a name of {len(name):,} characters")
        if not is_valid_shape(tensor.shape):
            raise WeightsError(
                f"{path} is corrupt: {truncate(name)} has more than 32 axes or a size over 2**48"
            )
        claimed += math.prod(tensor.shape) * tensor.dtype.itemsize
    if claimed > 3 * size + 2**26:  # compressed, never written, or shared by many tensors
        raise WeightsError(
            f"{path} has {size:,} bytes but its tensors claim {claimed:,}; save them uncompressed,"
            " and each once"
        )


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive, unless its directory is longer than any network's.

    Raises:
      Exception: the archive is corrupt; whatever zipfile raises.
    """
    reader = _ZipReader(path)
    archive = zipfile.ZipFile(reader)
    reader.is_open = True
    check_count(len(archive.filelist), reader.size, "entries")
    return archive


class _ZipReader(io.BufferedReader):
    """A file that limits the directory that zipfile reads, at once, when it opens an archive."""

    def __init__(self, path: Path):
        self.is_open = False
        super().__init__(io.FileIO(os.fspath(path)))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read ``size`` bytes, or all that are left."""
        if not self.is_open:
            size = self.size - self.tell() if size is None or size < 0 else size
            check_table(size, self.size, "directory")
        return super().read(size)

    def __del__(self):
        self.close()  # zipfile closes only the files that it opens itself
