"""Read PyTorch's ``.pth``/``.pt``/``.bin`` files without PyTorch and without running code.

``torch.save`` writes a zip archive: ``data.pkl`` describes the objects, and ``data/KEY`` has the
raw values of each storage (https://docs.pytorch.org/docs/stable/notes/serialization.html).
A pickle is a program for a stack machine, and Python's interpreter of it imports and calls
whatever the program names. The interpreter here supports only the instructions that state dicts
need, imports nothing, and maps a fixed set of names to its own functions.
"""

import dataclasses
import functools
import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.text import truncate
from flax_resnet.weights.limits import check_count
from flax_resnet.weights.tensors import (
    BFLOAT16,
    Tensor,
    WeightFile,
    WeightsError,
    is_valid_shape,
)

_STORAGE_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}

# Keys under which training scripts save the state dict, in order of preference.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle refers to; it is never imported."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str


@dataclasses.dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Ignored(dict):
    """A placeholder for objects without weights, such as the script's arguments."""


def _rebuild_tensor(args: tuple) -> _View:
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage")
    if not is_valid_shape(shape, offset) or not is_valid_shape(strides):
        raise ValueError("a tensor with more than 32 axes, or with a size outside 0 … 2**48")
    return _View(storage, offset, tuple(shape), tuple(strides))


_IGNORED_CALLS = (
    "__builtin__.set _codecs.encode argparse.Namespace builtins.set collections.Counter"
    " collections.defaultdict datetime.datetime numpy._core.multiarray._reconstruct"
    " numpy._core.multiarray.scalar numpy.core.multiarray._reconstruct"
    " numpy.core.multiarray.scalar numpy.dtype pathlib.PosixPath pathlib._local.PosixPath"
    " torch.device"
).split()

_CALLS: dict[str, Callable[[tuple], Any]] = (
    {
        "collections.OrderedDict": lambda args: {},  # SETITEMS adds the items
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda args: args[0],
        "torch._utils._rebuild_parameter_with_state": lambda args: args[0],
        "torch._tensor._rebuild_from_type_v2": lambda args: _call(args[0], args[2]),
        "torch.Size": lambda args: tuple(args[0][:32]),
    }
    | dict.fromkeys(_IGNORED_CALLS, lambda args: _Ignored())
)

# Names in the arguments of these calls.
_NAMES = (
    set(_CALLS)
    | {f"torch.{storage}" for storage in _STORAGE_DTYPES}
    | {f"torch.{dtype}" for dtype in ("bfloat16", "float16", "float32", "float64", "int64")}
    | {f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("dict", "list")}
    | {"numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter"}
)


def read_torch(path: Path, archive: zipfile.ZipFile) -> WeightFile:
    """Read a zip archive of ``torch.save``.

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
    try:
        content = _interpret(_entry(archive, program), 300_000 + size // 500)
        state, notes = _state_dict(content)
    except _Refused as error:
        raise WeightsError(
            f"{path} refers to {error}, which weights do not need: refused, and nothing was run."
            " Save plain tensors, torch.save(model.state_dict(), OUT), or use .safetensors"
        ) from None
    if not state:
        raise WeightsError(
            f"{path} has no named tensors, neither directly nor under {', '.join(_WRAPPERS)};"
            " save model.state_dict()"
        )
    check_count(len(state), size, "tensors")
    storages = {f"{folder}data/{view.storage.key}" for view in state.values()}
    if sum(_size(archive, name) for name in storages if name in archive.NameToInfo) > size:
        raise ValueError("its entries overlap")
    order = f"{folder}byteorder"
    big_endian = order in names and _entry(archive, order) == b"big"

    @functools.cache  # several tensors may share a storage
    def storage_values(storage: _Storage) -> np.ndarray:
        raw, size = _entry(archive, f"{folder}data/{storage.key}"), storage.dtype.itemsize
        values = np.frombuffer(raw, f"u{size}", count=len(raw) // size)
        return (values.byteswap() if big_endian else values).view(storage.dtype)

    def tensor(name: str, view: _View) -> Tensor:
        _check_view(archive, f"{folder}data/{view.storage.key}", name, view)
        return Tensor(view.shape, view.storage.dtype, lambda: _read_view(view, storage_values))

    tensors = {name: tensor(name, view) for name, view in state.items()}
    return WeightFile("PyTorch zip", tensors, notes=notes)


class _Refused(Exception):
    """The pickle refers to something that weights do not need."""


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


def _check_view(archive: zipfile.ZipFile, entry: str, name: str, view: _View) -> None:
    """Raise WeightsError unless the storage in ``entry`` has all values of the tensor ``name``."""
    try:
        available = _size(archive, entry) // view.storage.dtype.itemsize
    except KeyError:
        raise WeightsError(
            f"{archive.filename} lacks the values of {truncate(name)} ({truncate(entry)})"
        ) from None
    values = math.prod(view.shape)
    if not values:
        return
    steps = list(zip(view.shape, view.strides, strict=True))
    if any(n > 1 and not stride for n, stride in steps):
        raise WeightsError(
            f"{archive.filename}: {truncate(name)} is an expanded view; save it with .contiguous()"
        )
    end = view.offset + sum((n - 1) * stride for n, stride in steps) + 1
    needed = max(end, values)  # overlapping strides may not multiply values
    if needed > available:
        raise WeightsError(
            f"{archive.filename}: {truncate(name)} of shape {truncate(str(view.shape))} needs"
            f" {truncate(f'{needed:,}')} values, its storage has {available:,}; the file is corrupt"
        )


def _read_view(view: _View, storage_values: Callable[[_Storage], np.ndarray]) -> np.ndarray:
    if not math.prod(view.shape):
        return np.empty(view.shape, view.storage.dtype)
    strides = [stride * view.storage.dtype.itemsize for stride in view.strides]
    # _check_view() has compared the view's end with the entry's size, which _entry() enforces.
    values = storage_values(view.storage)[view.offset :]
    return np.lib.stride_tricks.as_strided(values, view.shape, strides, writeable=False)


def _state_dict(root: Any, depth: int = 3) -> tuple[dict[str, _View], tuple[str, ...]]:
    """Return the named tensors, at most ``depth`` wrappers deep, and notes on the wrappers."""
    if isinstance(root, dict):
        tensors = {k: v for k, v in root.items() if isinstance(k, str) and isinstance(v, _View)}
        if tensors:
            return tensors, ()
        for key in _WRAPPERS if depth else ():
            if isinstance(root.get(key), dict) and root[key]:
                tensors, notes = _state_dict(root[key], depth - 1)
                if not tensors:
                    continue
                others = truncate(", ".join(sorted(k for k in root if k != key)), 200)
                ignored = f", ignored {others}" if others else ""
                return tensors, (f"read {key!r}{ignored}", *notes)
    return {}, ()


def _call(function: Any, args: Any) -> Any:
    # Not printed in full: printing nested tuples that share parts takes exponential time.
    if not isinstance(function, _Name):
        raise _Refused(f"a call of a {type(function).__name__}")
    if function.name not in _CALLS:
        raise _Refused(f"a call of {function.name!r}")
    return _CALLS[function.name](args)


def _persistent(identity: Any) -> _Storage:
    if not isinstance(identity, tuple) or len(identity) != 5:
        raise ValueError("a reference that is not to a storage")
    kind, storage, key, _, _ = identity
    dtype = _STORAGE_DTYPES.get(storage.name.rpartition(".")[2])
    if kind != "storage" or dtype is None or not isinstance(key, str):
        raise ValueError(f"an unknown storage {storage.name}")
    return _Storage(dtype, key)


# Instructions that push a new object, and those that push their argument.
_LITERALS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": _Ignored,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_ARGUMENTS = (
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES"
    " BINSTRING SHORT_BINSTRING"
).split()


def _interpret(program: bytes, max_instructions: int) -> Any:
    """Execute the supported instructions of a pickle, decoded by ``pickletools``.

    An instruction makes at most one object, of about a hundred bytes or of the length of its
    argument in the program, so limits on both also limit the memory.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def name(text: str) -> _Name:
        if text not in _NAMES:
            raise _Refused(repr(truncate(text)))
        return _Name(text)

    def pop(n: int) -> list[Any]:
        start = len(stack) - n
        if start < (marks[-1] if marks else 0):
            raise ValueError("stack underflow")
        items = stack[start:]
        del stack[start:]
        return items

    def since_mark() -> list[Any]:
        return pop(len(stack) - marks.pop())

    def fill(target: Any, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, str | int | float | None):
                raise ValueError("a dictionary key that is neither a string nor a number")
            if isinstance(key, str):  # no tensor has a number as its name; their hashes can collide
                target[key] = value

    for number, (opcode, arg, _) in enumerate(pickletools.genops(program)):
        if number == max_instructions:
            raise ValueError(f"its pickle has more than {max_instructions:,} instructions")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                marks.append(len(stack))
            case "GLOBAL":
                stack.append(name(arg.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack.append(name(".".join(pop(2))))
            case "BINPERSID":
                stack.append(_persistent(*pop(1)))
            case "REDUCE" | "NEWOBJ":
                stack.append(_call(*pop(2)))
            case "BUILD":  # attributes, such as a state dict's version numbers
                pop(1)
            case literal if literal in _LITERALS:
                stack.append(_LITERALS[literal]())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode.name[-1]))))
            case "SETITEM" | "SETITEMS":
                items = pop(2) if opcode.name == "SETITEM" else since_mark()
                fill(stack[-1], items)
            case "APPEND" | "APPENDS":
                items = pop(1) if opcode.name == "APPEND" else since_mark()
                stack[-1].extend(items)
            case "ADDITEMS":
                since_mark()
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case literal if literal in _ARGUMENTS:
                stack.append(arg)
            case other:
                raise _Refused(f"the pickle instruction {other}")
    raise ValueError("no end")
