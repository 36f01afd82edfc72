"""Which modules of a net keep their parameters and statistics."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from train.runtime.errors import UsageError

BACKBONE = "backbone"


def frozen_modules(patterns: str, modules: Iterable[str]) -> tuple[str, ...]:
    """The ``modules`` that ``config.freeze`` names, sorted.

    Args:
      patterns: names with ``*``, ``?`` and ``[12]``, with commas between them, such as
        ``"stem*,stage[12]*"``; ``"backbone"`` is all but the head.
      modules: of the net: ``stem_conv``, ``stem_norm``, ``stage1_block1``, …, ``head``.

    Raises UsageError for a pattern that names nothing, and where nothing is left to train.
    """
    modules = sorted(modules)
    frozen: set[str] = set()
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        if pattern == BACKBONE:
            named = [name for name in modules if name != "head"]
        else:
            named = fnmatch.filter(modules, pattern)
        if not named:
            close = fnmatch.filter(modules, f"{pattern}*")
            hint = f"{pattern + '*'!r} names" if close else "there are"
            told = ", ".join(close or modules)
            raise UsageError(f"config.freeze: {pattern!r} names no module; {hint} {told}")
        frozen.update(named)
    if frozen.issuperset(modules):
        raise UsageError(f"config.freeze={patterns!r} leaves nothing to train")
    return tuple(sorted(frozen))
