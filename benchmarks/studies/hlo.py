"""Memory traffic of the kernels of a compiled program, from the text of its HLO."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# `%name = type[dimensions]{layout} operation(operands), attributes`; a tuple's type has brackets.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z-]*)\((.*?)\)(?:, (.*))?$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_BITS = re.compile(r"(?:bf|[sufc])(\d+)")
_OPERAND = re.compile(r"%([\w.-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
# Operations without memory traffic.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
_ELSEWHERE = {"while", "conditional", "call"}


@dataclass(frozen=True)
class Kernel:
    """One kernel launch: name, kind ("fusion", "copy", a library call, …) and bytes."""

    name: str
    kind: str
    read: int
    written: int

    @property
    def bytes(self) -> int:
        return self.read + self.written


def kernels(text: str) -> list[Kernel]:
    """Return the kernels of the entry computation of ``compiled.as_text()``, in order.

    Each operand and each result counts once and in full: the memory traffic if caches keep nothing
    between kernels. Workspaces of libraries (``u8``) do not count.

    Raises:
      ValueError: the program has loops or conditionals, whose bodies are elsewhere, or asynchronous
        instructions, or cannot be parsed.
    """
    entry = text[text.index("\nENTRY") + 1 :].splitlines()[1:]
    instructions = [_parts(line) for line in entry[: entry.index("}")]]
    types = {name: kind for name, kind, *_ in instructions}
    result = []
    for name, output, operation, operands, attributes in instructions:
        if operation in _ELSEWHERE or operation.endswith(("-start", "-done")):
            raise ValueError(f"cannot count the kernels inside {name} = {operation}(…)")
        if operation in _FREE:
            continue
        target = _TARGET.search(attributes or "")
        kind = target[1] if target else operation
        read = sum(size(types[operand]) for operand in set(_OPERAND.findall(operands)))
        result.append(Kernel(name, kind, read, size(output, workspace=target is None)))
    return result


def _parts(line: str) -> tuple[str, ...]:
    """Return name, type, operation, operands and attributes of an instruction."""
    if (match := _INSTRUCTION.match(line)) is None:
        raise ValueError(f"cannot read the instruction {line.strip()[:200]}")
    return match.groups()


def size(kind: str, workspace: bool = True) -> int:
    """Return the bytes of a type such as ``(bf16[8,4]{1,0}, u8[0]{0})``, or without ``u8``."""
    arrays = [array for array in _ARRAY.findall(kind) if workspace or array[0] != "u8"]
    return sum(
        _itemsize(dtype) * math.prod(int(length) for length in lengths.split(",") if length)
        for dtype, lengths in arrays
    )


def _itemsize(dtype: str) -> int:
    bits = 8 if dtype == "pred" else int((_BITS.fullmatch(dtype) or ["", "0"])[1])
    if bits == 0 or bits % 8:
        raise ValueError(f"unknown size of {dtype}")
    return bits // 8
