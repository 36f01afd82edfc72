"""What the kernels of a compiled program read and write, counted in the text of its HLO."""

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
# What names memory and moves none.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
_ELSEWHERE = {"while", "conditional", "call"}


@dataclass(frozen=True)
class Kernel:
    """One launch: ``name``, ``kind`` ("fusion", "copy", a library's call, …) and bytes."""

    name: str
    kind: str
    read: int
    written: int

    @property
    def bytes(self) -> int:
        return self.read + self.written


def kernels(text: str) -> list[Kernel]:
    """Of the entry computation of ``compiled.as_text()``, in order.

    Each operand counts once and whole, each result once: memory's traffic where caches hold
    nothing from one kernel to the next. A library's workspace (``u8``) does not count. What is not
    understood is a ValueError: loops and conditionals, whose bodies stand elsewhere, and what is
    begun by one instruction and ended by another.
    """
    entry = text[text.index("\nENTRY") + 1 :].splitlines()[1:]
    instructions = [_parts(line) for line in entry[: entry.index("}")]]
    types = {name: kind for name, kind, *_ in instructions}
    found = []
    for name, result, operation, operands, attributes in instructions:
        if operation in _ELSEWHERE or operation.endswith(("-start", "-done")):
            raise ValueError(f"cannot count what {name} = {operation}(…) runs")
        if operation in _FREE:
            continue
        target = _TARGET.search(attributes or "")
        kind = target[1] if target else operation
        read = sum(size(types[operand]) for operand in set(_OPERAND.findall(operands)))
        found.append(Kernel(name, kind, read, size(result, workspace=target is None)))
    return found


def _parts(line: str) -> tuple[str, ...]:
    """Name, type, operation, operands and attributes of an instruction."""
    if (match := _INSTRUCTION.match(line)) is None:
        raise ValueError(f"cannot read the instruction {line.strip()[:200]}")
    return match.groups()


def size(kind: str, workspace: bool = True) -> int:
    """Bytes of a type such as ``(bf16[8,4]{1,0}, u8[0]{0})``; with or without those of ``u8``."""
    arrays = [array for array in _ARRAY.findall(kind) if workspace or array[0] != "u8"]
    return sum(
        _itemsize(dtype) * math.prod(int(length) for length in lengths.split(",") if length)
        for dtype, lengths in arrays
    )


def _itemsize(dtype: str) -> int:
    bits = 8 if dtype == "pred" else int((_BITS.fullmatch(dtype) or ["", "0"])[1])
    if bits == 0 or bits % 8:
        raise ValueError(f"cannot tell the bytes of {dtype}")
    return bits // 8
