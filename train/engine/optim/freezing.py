"""Selection of the modules that keep their parameters and batch statistics."""

import fnmatch
from collections.abc import Iterable

from flax_resnet.dense.on_backbone import HEADS
from train.runtime.errors import UsageError

BACKBONE = "backbone"


def frozen_modules(patterns: str, modules: Iterable[str]) -> tuple[str, ...]:
    """Return the modules that ``config.freeze`` selects, sorted.

    Args:
      patterns: comma-separated names with ``*``, ``?`` and ``[12]``, for example
        ``"stem*,stage[12]*"``; ``"backbone"`` is everything except the heads.
      modules: the network's: ``stem_conv``, ``stem_norm``, ``stage1_block1``, …, ``head``, or
        ``backbone``, ``head`` and ``aux_head``.

    Raises:
      UsageError: a pattern matches nothing, or nothing is left to train.
    """
    modules = sorted(modules)
    frozen: set[str] = set()
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        if pattern == BACKBONE:
            matches = [name for name in modules if name not in HEADS]
        else:
            matches = fnmatch.filter(modules, pattern)
        if not matches:
            close = fnmatch.filter(modules, f"{pattern}*")
            hint = f"{pattern + '*'!r} matches" if close else "there are"
            names = ", ".join(close or modules)
            raise UsageError(f"config.freeze: {pattern!r} matches no module; {hint} {names}")
        frozen.update(matches)
    if frozen.issuperset(modules):
        raise UsageError(f"config.freeze={patterns!r} leaves nothing to train")
    return tuple(sorted(frozen))
