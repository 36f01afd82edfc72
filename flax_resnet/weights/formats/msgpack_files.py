"""Read ``.msgpack`` files of ``flax.serialization``, such as transformers' ``flax_model.msgpack``.

The format is a tree of maps with arrays as leaves: extension 1 holds the shape, the type's name
and the values (https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html). The
``msgpack`` package decodes every map header and leaf on its own, so that neither nested containers
nor many small objects take more memory than the file; it runs no code. Tensors are named like
``params/stem_conv/kernel``.
"""

import functools
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgpack
import numpy as np

from flax_resnet.text import truncate
from flax_resnet.weights.formats.limits import max_entries
from flax_resnet.weights.tensors import BFLOAT16, Tensor, WeightFile, WeightsError, is_valid_shape

_ARRAY = 1  # flax.serialization's extension for arrays
_CHUNKED = "__msgpack_chunked_array__"
_MAX_DEPTH = 32
_MAX_TEXT = 500  # characters of a key and of an array's name
_MAX_HEADER = 400  # bytes of an array's shape of up to 32 axes, and of its type
# Bytes before an extension's content, by its first byte, and before the values of an array.
_HEADERS = {0xC7: 3, 0xC8: 4, 0xC9: 6} | dict.fromkeys(range(0xD4, 0xD9), 2)
_VALUES = {0xC4: 2, 0xC5: 3, 0xC6: 5}
_DTYPES = {
    name: np.dtype(name)
    for name in (
        "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
    ).split()
} | {"bfloat16": BFLOAT16}


def is_msgpack(start: bytes) -> bool:
    """Return whether a file with this start is a non-empty map of msgpack with texts as keys."""
    header = {0xDE: 3, 0xDF: 5}.get(start[0], 1 if 0x81 <= start[0] <= 0x8F else 0)
    key = start[header : header + 1]  # a PNG starts as a map, but with a number as its first key
    return bool(header and key) and (0xA0 <= key[0] <= 0xBF or 0xD9 <= key[0] <= 0xDB)


def read_msgpack(path: Path) -> WeightFile:
    """Read the names, shapes and types of the arrays in a msgpack file.

    Raises:
      WeightsError: the file has no arrays, or ones of over 1 GB, which Flax writes in pieces.
      Exception: the file is corrupt; whatever msgpack raises.
    """
    size = path.stat().st_size
    tensors: dict[str, Tensor] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for names, start, end in _leaves(content, size):
            if _CHUNKED in names:
                raise WeightsError(
                    f"{path} has an array of over 1 GB in pieces, which no ResNet has: save its"
                    " tensors in .safetensors"
                )
            header = _HEADERS.get(content[start])  # of an extension: length and code
            if header is None or content[start + header - 1] != _ARRAY:
                continue
            name = "/".join(names)
            if len(name) > _MAX_TEXT:
                raise ValueError(f"an array with a name of {len(name):,} characters")
            if name in tensors:
                raise ValueError(f"{truncate(name)} occurs twice")
            shape, dtype, values = _array(content[start + header : end][:_MAX_HEADER])
            if start + header + values + math.prod(shape) * dtype.itemsize != end:
                raise ValueError(f"{truncate(name)} of shape {truncate(shape)} lacks its values")
            read = functools.partial(_read, path, start + header + values, shape, dtype)
            tensors[name] = Tensor(shape, dtype, read)
    if not tensors:
        raise WeightsError(f"{path} has no arrays; save the variables of a network in it")
    return WeightFile("Flax msgpack", tensors)


def _leaves(content: mmap.mmap, size: int) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Yield the keys around every value that is not a map, and where it starts and ends."""
    unpacker = _unpacker(size)
    unpacker.feed(content)
    pending = [unpacker.read_map_header()]  # entries to read in every open map
    keys: list[str] = []
    entries = 0
    while pending:
        if not pending[-1]:
            pending.pop()
            keys = keys[:-1]
            continue
        pending[-1] -= 1
        entries += 1
        if entries > (limit := max_entries(size)):
            raise ValueError(f"it has more than {limit:,} entries")
        key = unpacker.unpack()
        if not isinstance(key, str) or len(key) > _MAX_TEXT:
            raise ValueError(f"a key that is not a text of up to {_MAX_TEXT} characters")
        start = unpacker.tell()
        if 0x80 <= content[start] <= 0x8F or content[start] in (0xDE, 0xDF):
            if len(pending) == _MAX_DEPTH:
                raise ValueError(f"maps nested more than {_MAX_DEPTH} deep")
            pending.append(unpacker.read_map_header())
            keys.append(key)
            continue
        unpacker.skip()
        yield (*keys, key), start, unpacker.tell()
    if unpacker.tell() != size:
        raise ValueError("it has bytes after its end")


def _unpacker(size: int) -> Any:
    """Return a decoder of maps' headers and of values without containers."""
    return msgpack.Unpacker(
        raw=False,
        list_hook=_refuse,
        object_hook=_refuse,
        max_buffer_size=max(size, 1),
        max_array_len=32,
        max_map_len=max_entries(size),
    )


def _refuse(_: object) -> NoReturn:
    raise ValueError("a list or map, where Flax writes an array")


def _array(start: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Return an array's shape, its type and where its values begin, from its first bytes."""
    unpacker = _unpacker(len(start))
    unpacker.feed(start)
    if unpacker.read_array_header() != 3 or (axes := unpacker.read_array_header()) > 32:
        raise ValueError("an array without a shape, a type and values")
    shape = tuple(unpacker.unpack() for _ in range(axes))
    name = unpacker.unpack()
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None or not is_valid_shape(shape):
        raise ValueError(f"an array of type {truncate(repr(name))} and shape {truncate(shape)}")
    if (place := unpacker.tell()) == len(start) or start[place] not in _VALUES:
        raise ValueError("an array without values")
    return shape, dtype, place + _VALUES[start[place]]


def _read(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.fromfile(path, dtype, math.prod(shape), offset=start).reshape(shape)
