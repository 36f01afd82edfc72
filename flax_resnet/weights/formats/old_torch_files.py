"""Read PyTorch's files before version 1.6, without PyTorch and without running code.

Such a file has four pickles (a magic number, the version, the byte order and the objects), a
fifth with the keys of all storages, and the storages: a count of 8 bytes and the values.
Published weights of 2020 and before have this format, such as MoCo's and torchvision's first.
"""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flax_resnet.text import truncate
from flax_resnet.weights.formats.pickles import Storage, interpret
from flax_resnet.weights.formats.torch_files import decode, max_instructions, refusing, weight_file
from flax_resnet.weights.tensors import WeightFile

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a number, after the pickle's version
_VERSION = 1001
_COUNT = 8  # bytes


def is_old_torch(start: bytes) -> bool:
    """Return whether a file with this start has the old format."""
    return start[:1] == b"\x80" and start[2:15] == _MAGIC


def read_old_torch(path: Path, part: str = "") -> WeightFile:
    """Read a file of ``torch.save`` before PyTorch 1.6.

    Raises:
      WeightsError: the file refers to anything but tensors and plain containers, or claims more
        values than it has.
      Exception: the file is corrupt; whatever pickletools raises.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(2**23 + size // 4))
        pickles.seek(2 + len(_MAGIC))
        storages: dict[str, Storage] = {}
        with refusing(path):
            if interpret(pickles, 100) != _VERSION:
                raise ValueError("an unknown version")
            system = interpret(pickles, 100)
            content = interpret(pickles, max_instructions(size), storages)
            keys = interpret(pickles, max_instructions(size))
        places: dict[str, tuple[int, int]] = {}
        place = pickles.tell()
        for key in keys:
            if not isinstance(key, str) or key not in storages or key in places:
                raise ValueError(f"an unknown storage {truncate(key)}")
            file.seek(place)
            count = int.from_bytes(file.read(_COUNT), "little")
            length = count * storages[key].dtype.itemsize
            place += _COUNT
            if place + length > size:
                raise ValueError(f"a storage of {truncate(length)} bytes")
            places[key] = place, length
            place += length
    big_endian = isinstance(system, dict) and system.get("little_endian") is False
    return weight_file(path, content, part, "PyTorch before 1.6", _Places(path, places, big_endian))


@dataclasses.dataclass(frozen=True)
class _Places:
    """Storages one after another: where each starts, and its number of bytes."""

    path: Path
    places: Mapping[str, tuple[int, int]]
    big_endian: bool

    def size(self, storage: Storage) -> int | None:
        return self.places.get(storage.key, (0, None))[1]

    def read(self, storage: Storage) -> np.ndarray:
        place, length = self.places[storage.key]
        with self.path.open("rb") as file:
            file.seek(place)
            return decode(file.read(length), storage.dtype, self.big_endian)
