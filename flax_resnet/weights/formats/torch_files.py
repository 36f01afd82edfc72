"""Read PyTorch's ``.pth``/``.pt``/``.bin`` files without PyTorch and without running code.

``torch.save`` writes a zip archive: ``data.pkl`` describes the objects, and ``data/KEY`` has the
raw values of each storage (https://docs.pytorch.org/docs/stable/notes/serialization.html).
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flax_resnet.text import truncate
from flax_resnet.weights.formats.limits import check_count
from flax_resnet.weights.formats.pickles import Refused, Storage, View, interpret
from flax_resnet.weights.naming.names import find_parts
from flax_resnet.weights.naming.parts import Part, choose_part
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

_MAX_DEPTH = 4  # of dictionaries around the state dict
_MAX_KEY = 100  # characters of a dictionary's key
_OPTIMIZER = re.compile(r"optim|grad|momentum_buffer|exp_avg", re.IGNORECASE)


def read_torch(path: Path, archive: zipfile.ZipFile, part: str = "") -> WeightFile:
    """Read a zip archive of ``torch.save``.

    Args:
      path: the file, for messages.
      archive: the file's content.
      part: the network that ``FILE#PART`` names.

    Raises:
      WeightsError: the archive is TorchScript, refers to anything but tensors and plain
        containers, or claims more values than it has.
      Exception: the archive is corrupt; whatever zipfile and pickletools raise.
    """
    size = path.stat().st_size
    names = archive.namelist()
    program = next(name for name in names if name.endswith("data.pkl"))
    folder = program.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in names:
        raise WeightsError(
            f"{path} is a TorchScript program, not a state dict; save the weights with"
            " torch.save(torch.jit.load(FILE).state_dict(), OUT)"
        )
    if (length := _size(archive, program)) > 2**23 + size // 4:
        raise ValueError(f"its {truncate(program)} has {length:,} bytes of {size:,}")
    with refusing(path):
        content = interpret(_entry(archive, program), max_instructions(size))
    order = f"{folder}byteorder"
    big_endian = order in names and _entry(archive, order) == b"big"
    return weight_file(path, content, part, "PyTorch zip", _Entries(archive, folder, big_endian))


def max_instructions(size: int) -> int:
    """Return how many instructions the pickle in a file of ``size`` bytes may have."""
    return 300_000 + size // 500


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Convert Refused to a WeightsError."""
    try:
        yield
    except Refused as error:
        raise WeightsError(
            f"{path} refers to {error}, which weights do not need: refused, and nothing was run."
            " Save plain tensors, torch.save(model.state_dict(), OUT), or use .safetensors"
        ) from None


class Storages(Protocol):
    """The values in a file."""

    def size(self, storage: Storage) -> int | None:
        """Return the number of bytes of a storage, or None if it is not in the file."""

    def read(self, storage: Storage) -> np.ndarray:
        """Return the values of a storage."""


def weight_file(
    path: Path, content: Any, part: str, file_format: str, storages: Storages
) -> WeightFile:
    """Return one network of what a pickle describes.

    Raises:
      WeightsError: there is none, or a tensor has more values than its storage.
    """
    size = path.stat().st_size
    group, state, notes = _state_dict(content, part, str(path))
    if not state:
        raise WeightsError(
            f"{path} has no named tensors, neither directly nor in dictionaries up to"
            f" {_MAX_DEPTH} deep; save model.state_dict()"
        )
    check_count(len(state), size, "tensors")
    if sum(storages.size(storage) or 0 for storage in {v.storage for v in state.values()}) > size:
        raise ValueError("its entries overlap")
    read = functools.cache(storages.read)  # several tensors may share a storage

    def tensor(name: str, view: View) -> Tensor:
        _check_view(path, name, view, storages.size(view.storage))
        return Tensor(view.shape, view.storage.dtype, lambda: _read_view(view, read))

    tensors = {name: tensor(name, view) for name, view in state.items()}
    return WeightFile(file_format, tensors, notes=notes, group=group)


@dataclasses.dataclass(frozen=True)
class _Entries:
    """Storages as entries of a zip archive."""

    archive: zipfile.ZipFile
    folder: str
    big_endian: bool

    def _name(self, storage: Storage) -> str:
        return f"{self.folder}data/{storage.key}"

    def size(self, storage: Storage) -> int | None:
        name = self._name(storage)
        return _size(self.archive, name) if name in self.archive.NameToInfo else None

    def read(self, storage: Storage) -> np.ndarray:
        return decode(_entry(self.archive, self._name(storage)), storage.dtype, self.big_endian)


def decode(raw: bytes, dtype: np.dtype, big_endian: bool) -> np.ndarray:
    """Return the values of a storage, given as bytes in either order."""
    values = np.frombuffer(raw, f"u{dtype.itemsize}", count=len(raw) // dtype.itemsize)
    return (values.byteswap() if big_endian else values).view(dtype)


def _size(archive: zipfile.ZipFile, name: str) -> int:
    # torch.save never compresses, and a compressed entry could expand to any size.
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(
            f"{archive.filename} has a compressed entry {truncate(name)}, which torch.save never"
            " writes"
        )
    stored = min(info.compress_size, os.path.getsize(str(archive.filename)))
    if info.file_size != stored:
        raise WeightsError(
            f"{archive.filename} is corrupt: its entry {truncate(name)} claims"
            f" {info.file_size:,} bytes but has {stored:,}; download or save it again"
        )
    return info.file_size


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an entry's bytes, exactly as many as :func:`_size` has verified."""
    size = _size(archive, name)
    raw = archive.read(name)
    if len(raw) != size:
        raise ValueError(f"the entry {truncate(name)} ends after {len(raw):,} of {size:,} bytes")
    return raw


def _check_view(path: Path, name: str, view: View, size: int | None) -> None:
    """Raise WeightsError unless a storage of ``size`` bytes has all values of the tensor."""
    if size is None:
        raise WeightsError(
            f"{path} lacks the values of {truncate(name)} ({truncate(view.storage.key)})"
        )
    available = size // view.storage.dtype.itemsize
    values = math.prod(view.shape)
    if not values:
        return
    steps = list(zip(view.shape, view.strides, strict=True))
    if any(n > 1 and not stride for n, stride in steps):
        raise WeightsError(
            f"{path}: {truncate(name)} is an expanded view; save it with .contiguous()"
        )
    end = view.offset + sum((n - 1) * stride for n, stride in steps) + 1
    needed = max(end, values)  # overlapping strides may not multiply values
    if needed > available:
        raise WeightsError(
            f"{path}: {truncate(name)} of shape {truncate(str(view.shape))} needs"
            f" {truncate(f'{needed:,}')} values, its storage has {available:,}; the file is corrupt"
        )


def _read_view(view: View, storage_values: Callable[[Storage], np.ndarray]) -> np.ndarray:
    if not math.prod(view.shape):
        return np.empty(view.shape, view.storage.dtype)
    strides = [stride * view.storage.dtype.itemsize for stride in view.strides]
    # _check_view() has compared the view's end with the storage's size.
    values = storage_values(view.storage)[view.offset :]
    return np.lib.stride_tricks.as_strided(values, view.shape, strides, writeable=False)


def _state_dict(
    root: Any, wanted: str, source: str
) -> tuple[str, dict[str, View], tuple[str, ...]]:
    """Return the keys around one network's state dict, its tensors, and notes on the rest."""
    groups = _groups(root)
    parts = find_parts(groups)
    if parts:
        parts = [part for part in parts if not _is_copy(part.group, groups, parts)]
        part, notes = choose_part(parts, wanted, source)
        group = part.group
        if len({part.group for part in parts}) == 1:
            notes = ()  # find_network() chooses, and notes what else is in the dictionary
    else:  # an unknown network, whose tensors the error names
        group, notes = max(groups, key=lambda key: len(groups[key]), default=""), ()
    if group:
        read = {group, *(part.group for part in parts)}  # or named as another network
        beside = [k for k in sorted(root) if not any(f"{g}.".startswith(f"{k}.") for g in read)]
        notes = notes or (f"read {truncate(group)!r}",)
        if beside:
            notes += (f"ignored {truncate(', '.join(beside), 200)}",)
    return group, groups.get(group, {}), notes


def _groups(root: Any) -> dict[str, dict[str, View]]:
    """Return the tensors directly in each dictionary, by the keys around it joined with dots."""
    groups: dict[str, dict[str, View]] = {}
    seen: set[int] = set()
    pending = collections.deque([("", root, 0)])
    while pending:
        group, content, depth = pending.popleft()
        if not isinstance(content, dict) or id(content) in seen or _OPTIMIZER.search(group):
            continue
        seen.add(id(content))
        if tensors := {key: value for key, value in content.items() if isinstance(value, View)}:
            groups[group] = tensors
        if depth < _MAX_DEPTH:
            pending += [
                (f"{group}.{key}" if group else key, value, depth + 1)
                for key, value in content.items()
                if isinstance(value, dict) and len(key) <= _MAX_KEY
            ]
    return groups


def _is_copy(group: str, groups: dict[str, dict[str, View]], parts: list[Part]) -> bool:
    """Return whether another key, before this one, has the same tensors."""
    before = itertools.takewhile(lambda part: part.group != group, parts[:100])
    return any(groups[part.group] == groups[group] for part in before)
