"""PyTorch's ``.pth`` / ``.pt`` / ``.bin`` files, read without PyTorch and without running code.

``torch.save`` writes a zip archive: ``data.pkl`` describes the objects, ``data/KEY`` holds
the raw values of each storage (https://docs.pytorch.org/docs/stable/notes/serialization.html).
A pickle is a program for a small stack machine, and Python's own machine imports and calls
whatever the program names. The machine here knows only the instructions that state dicts
need, imports nothing, and gives the few names it knows a fixed meaning of its own.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.weights.tensors import (
    BFLOAT16,
    Tensor,
    WeightFile,
    WeightsError,
    is_sane_shape,
    shortened,
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

# Where training scripts put the state dict, in the order of preference.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle refers to; never imported."""

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
    """Stands for an object that holds no weights, such as the script's arguments."""


def _rebuild_tensor(args: tuple) -> _View:
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage")
    if not is_sane_shape(shape, offset) or not is_sane_shape(strides):
        raise ValueError("a tensor of more than 32 axes, or with a size outside 0 … 2**48")
    return _View(storage, offset, tuple(shape), tuple(strides))


_CALLS: dict[str, Callable[[tuple], Any]] = (
    {
        "collections.OrderedDict": lambda args: {},  # its items follow by SETITEMS
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda args: args[0],
        "torch._utils._rebuild_parameter_with_state": lambda args: args[0],
        "torch._tensor._rebuild_from_type_v2": lambda args: _call(args[0], args[2]),
        "torch.Size": lambda args: tuple(args[0][:32]),
    }
    | dict.fromkeys(
        (
            "__builtin__.set",
            "_codecs.encode",
            "argparse.Namespace",
            "builtins.set",
            "collections.Counter",
            "collections.defaultdict",
            "datetime.datetime",
            "numpy._core.multiarray._reconstruct",
            "numpy._core.multiarray.scalar",
            "numpy.core.multiarray._reconstruct",
            "numpy.core.multiarray.scalar",
            "numpy.dtype",
            "pathlib.PosixPath",
            "pathlib._local.PosixPath",
            "torch.device",
        ),
        lambda args: _Ignored(),
    )
)

# Names that only stand in the arguments of those calls.
_NAMES = (
    set(_CALLS)
    | {f"torch.{storage}" for storage in _STORAGE_DTYPES}
    | {f"torch.{dtype}" for dtype in ("bfloat16", "float16", "float32", "float64", "int64")}
    | {f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("dict", "list")}
    | {"numpy.ndarray", "torch.Tensor"}
    | {"torch.nn.parameter.Parameter"}
)


def read_torch(path: Path) -> WeightFile:
    """Reads a zip archive of ``torch.save``.

    Raises WeightsError for an archive that is TorchScript, refers to anything but tensors
    and plain containers, or claims more values than it has, and what zipfile and pickletools
    raise for one that is damaged.
    """
    archive = zipfile.ZipFile(path)
    program = next(name for name in archive.namelist() if name.endswith("data.pkl"))
    folder = program.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.namelist():
        raise WeightsError(
            f"{path} is a TorchScript program, not a state dict; save the weights with"
            " torch.save(torch.jit.load(FILE).state_dict(), OUT)"
        )
    try:
        state, notes = _state_dict(_interpret(_entry(archive, program)))
    except _Refused as error:
        raise WeightsError(
            f"{path} refers to {error}, which no weights need: refused, and nothing was run."
            " Save plain tensors, torch.save(model.state_dict(), OUT), or use .safetensors"
        ) from None
    if not state:
        raise WeightsError(
            f"{path} holds no tensors by name, nor under {', '.join(_WRAPPERS)}; save"
            " model.state_dict()"
        )
    big_endian = (
        f"{folder}byteorder" in archive.namelist()
        and _entry(archive, f"{folder}byteorder") == b"big"
    )
    storages = _Storages(path, archive, folder, big_endian)
    tensors = {name: storages.tensor(name, view) for name, view in state.items()}
    return WeightFile("PyTorch zip", tensors, notes=notes)


class _Refused(Exception):
    pass


def _size(archive: zipfile.ZipFile, name: str) -> int:
    # torch.save never compresses; a compressed entry could unfold to any size.
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(
            f"{archive.filename} has the compressed entry {shortened(name)}, which torch.save"
            " never writes"
        )
    stored = min(info.compress_size, os.path.getsize(str(archive.filename)))
    if info.file_size != stored:
        raise _false_size(archive, name, stored)
    return info.file_size


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    size = _size(archive, name)
    raw = archive.read(name)
    if len(raw) != size:
        raise _false_size(archive, name, len(raw))
    return raw


def _false_size(archive: zipfile.ZipFile, name: str, found: int) -> WeightsError:
    return WeightsError(
        f"{archive.filename} is damaged: its entry {shortened(name)} claims"
        f" {archive.getinfo(name).file_size:,} bytes and has {found:,}; fetch or save it again"
    )


class _Storages:
    """The archive's raw values, each storage read once however many tensors share it."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str, big_endian: bool):
        self._path, self._archive, self._folder = path, archive, folder
        self._big_endian = big_endian
        self._read: dict[_Storage, np.ndarray] = {}

    def tensor(self, name: str, view: _View) -> Tensor:
        entry = f"{self._folder}data/{view.storage.key}"
        try:
            available = _size(self._archive, entry) // view.storage.dtype.itemsize
        except KeyError:
            raise WeightsError(
                f"{self._path} lacks the values of {shortened(name)} ({shortened(entry)})"
            ) from None
        values = math.prod(view.shape)
        if values and any(
            n > 1 and not stride for n, stride in zip(view.shape, view.strides, strict=True)
        ):
            raise WeightsError(
                f"{self._path}: {shortened(name)} is an expanded view; save it with .contiguous()"
            )
        needed = max(_end(view), values)  # one value may not stand for many
        if values and needed > available:
            shape = shortened(str(view.shape))
            raise WeightsError(
                f"{self._path}: {shortened(name)} of shape {shape} needs"
                f" {shortened(f'{needed:,}')} values, its storage has {available:,}; the file is"
                " damaged"
            )
        return Tensor(view.shape, view.storage.dtype, lambda: self._values(entry, view))

    def _values(self, entry: str, view: _View) -> np.ndarray:
        storage = view.storage
        if storage not in self._read:
            raw = _entry(self._archive, entry)
            size = storage.dtype.itemsize
            values = np.frombuffer(raw, f"u{size}", count=len(raw) // size)
            self._read[storage] = (values.byteswap() if self._big_endian else values).view(
                storage.dtype
            )
        values = self._read[storage]
        if not math.prod(view.shape):
            return np.empty(view.shape, storage.dtype)
        if _end(view) > values.size:  # else the view would read memory that is not the file's
            raise WeightsError(
                f"{self._path} is damaged: {shortened(entry)} has {values.size:,} values of the"
                f" {_end(view):,} that a tensor needs"
            )
        strides = [stride * storage.dtype.itemsize for stride in view.strides]
        return np.lib.stride_tricks.as_strided(
            values[view.offset :], view.shape, strides, writeable=False
        )


def _end(view: _View) -> int:
    """How many values of its storage a view that is not empty reaches over."""
    steps = zip(view.shape, view.strides, strict=True)
    return view.offset + sum((n - 1) * stride for n, stride in steps) + 1


def _state_dict(root: Any, depth: int = 3) -> tuple[dict[str, _View], tuple[str, ...]]:
    if isinstance(root, dict):
        tensors = {k: v for k, v in root.items() if isinstance(k, str) and isinstance(v, _View)}
        if tensors:
            return tensors, ()
        for key in _WRAPPERS if depth else ():
            if isinstance(root.get(key), dict) and root[key]:
                tensors, notes = _state_dict(root[key], depth - 1)
                if not tensors:
                    continue
                others = ", ".join(sorted(str(k) for k in root if k != key))
                others = shortened(others, 200)
                return tensors, (f"read {key!r}" + (f", left {others}" if others else ""), *notes)
    return {}, ()


def _call(function: Any, args: Any) -> Any:
    # Never printed in full: nested tuples that share their parts print at exponential length.
    if not isinstance(function, _Name):
        raise _Refused(f"a call of a {type(function).__name__}")
    if function.name not in _CALLS:
        raise _Refused(f"a call of {function.name!r}")
    return _CALLS[function.name](args)


def _persistent(identity: Any) -> _Storage:
    kind, storage, key, *_ = identity
    dtype = _STORAGE_DTYPES.get(storage.name.rpartition(".")[2])
    if kind != "storage" or dtype is None or not isinstance(key, str):
        raise ValueError(f"an unknown storage {storage.name}")
    return _Storage(dtype, key)


def _interpret(program: bytes) -> Any:
    """Runs the stack machine over the instructions that ``pickletools`` decodes."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def name(text: str) -> _Name:
        if text not in _NAMES:
            raise _Refused(repr(shortened(text)))
        return _Name(text)

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def pop(n: int) -> list[Any]:
        if n > len(stack) - (marks[-1] if marks else 0):
            raise ValueError("stack underflow")
        items = stack[len(stack) - n :]
        del stack[len(stack) - n :]
        return items

    def fill(target: Any, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, str | int | float | None):
                raise ValueError("a dictionary key that is no name or number")
            target[key] = value

    for opcode, arg, _ in pickletools.genops(program):
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
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_SET":
                stack.append(_Ignored())
            case "EMPTY_TUPLE":
                stack.append(())
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
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE"
                | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES" | "BINSTRING"
                | "SHORT_BINSTRING"
            ):  # fmt: skip
                stack.append(arg)
            case other:
                raise _Refused(f"the pickle instruction {other}")
    raise ValueError("no end")
