"""Interpret the pickles in PyTorch's files without running code.

A pickle is a program for a stack machine, and Python's interpreter of it imports and calls
whatever the program names. The interpreter here supports only the instructions that state dicts
need, imports nothing, and maps a fixed set of names to its own functions.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from flax_resnet.text import truncate
from flax_resnet.weights.tensors import BFLOAT16, is_valid_shape

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

# Packages whose objects are read as placeholders: what training scripts save beside the weights.
# Classes of the script itself are in __main__.
_OPAQUE = set(
    "__main__ addict argparse easydict enum lightning lightning_fabric lightning_utilities"
    " ml_collections mmengine omegaconf pytorch_lightning torchmetrics typing yacs".split()
) | {"types.SimpleNamespace"}


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle refers to; it is never imported."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """The values that tensors share, in the entry ``data/KEY`` of the archive."""

    dtype: np.dtype
    key: str


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor: part of a storage, with offset and strides in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Ignored(dict):
    """A placeholder for objects without weights, such as the script's arguments."""

    def extend(self, items: list[Any]) -> None:
        """Ignore the items of a subclass of list."""


def _rebuild_tensor(args: tuple) -> View:
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage")
    if not is_valid_shape(shape, offset) or not is_valid_shape(strides):
        raise ValueError("a tensor with more than 32 axes, or with a size outside 0 … 2**48")
    return View(storage, offset, tuple(shape), tuple(strides))


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

_TORCH_DTYPES = "bfloat16 float16 float32 float64 int8 int16 int32 int64 uint8 bool".split()

# Types of Python, which configurations name.
_TYPES = "bool bytes dict float frozenset int list long object str tuple unicode".split()

# Names in the arguments of these calls.
_NAMES = (
    set(_CALLS)
    | {f"torch.{storage}" for storage in _STORAGE_DTYPES}
    | {f"torch.{dtype}" for dtype in _TORCH_DTYPES}
    | {f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in _TYPES}
    | {"numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter"}
)


class Refused(Exception):
    """The pickle refers to something that weights do not need."""


def _call(function: Any, args: Any) -> Any:
    # Not printed in full: printing nested tuples that share parts takes exponential time.
    if not isinstance(function, _Name):
        raise Refused(f"a call of a {type(function).__name__}")
    if _is_opaque(function.name):
        return _Ignored()
    if function.name not in _CALLS:
        raise Refused(f"a call of {function.name!r}")
    return _CALLS[function.name](args)


def _is_opaque(name: str) -> bool:
    return name in _OPAQUE or name.partition(".")[0] in _OPAQUE


def _persistent(identity: Any) -> Storage:
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or any(identity[5:]):
        raise ValueError("a reference that is not to a storage")
    kind, storage, key = identity[:3]
    dtype = _STORAGE_DTYPES.get(storage.name.rpartition(".")[2])
    if kind != "storage" or dtype is None or not isinstance(key, str):
        raise ValueError(f"an unknown storage {storage.name}")
    return Storage(dtype, key)


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


def interpret(
    program: bytes | BinaryIO, max_instructions: int, storages: dict[str, Storage] | None = None
) -> Any:
    """Execute the supported instructions of a pickle, decoded by ``pickletools``.

    An instruction makes at most one object, of about a hundred bytes or of the length of its
    argument in the program, so limits on both also limit the memory.

    Args:
      program: the pickle, or a file at its start, which is then at its end.
      max_instructions: the limit of the number of instructions.
      storages: gets the storages that the pickle refers to, by their keys.

    Raises:
      Refused: the pickle refers to something that weights do not need.
      Exception: the pickle is corrupt; whatever pickletools raises.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def name(text: str) -> _Name:
        if text not in _NAMES and not _is_opaque(text):
            raise Refused(repr(truncate(text)))
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
            if isinstance(target, _Ignored):
                continue
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
                storage = _persistent(*pop(1))
                if storages is not None:
                    storages[storage.key] = storage
                stack.append(storage)
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
                raise Refused(f"the pickle instruction {other}")
    raise ValueError("no end")
