"""What the kernels of a compiled program read and write, counted in the text of its HLO."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# `%name = type[dimensions]{layout} operation(operands), attributes`; a tuple's type has brackets.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z-]*)\((.*?)\)(?:, (.*))?$")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
# What names memory and moves none.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}


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
    nothing from one kernel to the next. A library's workspace (``u8``) does not count. Loops and
    conditionals, whose bodies stand elsewhere, are a ValueError.
    """
    entry = text[text.index("\nENTRY") + 1 :].splitlines()[1:]
    instructions = [match.groups() for line in entry if (match := _INSTRUCTION.match(line))]
    types = {name: kind for name, kind, *_ in instructions}
    found = []
    for name, result, operation, operands, attributes in instructions:
        if operation in ("while", "conditional", "call"):
            raise ValueError(f"cannot count what {name} = {operation}(…) runs")
        if operation in _FREE:
            continue
        target = _TARGET.search(attributes or "")
        kind = target[1] if target else operation
        read = sum(size(types[operand]) for operand in set(_OPERAND.findall(operands)))
        found.append(Kernel(name, kind, read, size(result, workspace=target is None)))
    return found


def size(kind: str, workspace: bool = True) -> int:
    """Bytes of a type such as ``(bf16[8,4]{1,0}, u8[0]{0})``; with or without those of ``u8``."""
    arrays = [array for array in _ARRAY.findall(kind) if workspace or array[0] != "u8"]
    return sum(
        _itemsize(dtype) * math.prod(int(length) for length in lengths.split(",") if length)
        for dtype, lengths in arrays
    )


def _itemsize(dtype: str) -> int:
    """Bytes of an element of ``pred``, or of a type whose bits stand in its name."""
    bits = re.sub(r"\D", "", dtype)
    return int(bits) // 8 if bits else 1
