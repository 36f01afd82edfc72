"""Imports of large libraries."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_module(name: str) -> Iterator[None]:
    """Let imports in the block find that the module ``name`` is not installed.

    A module that is imported already stays.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Import in the block without garbage collections, and exclude its objects from later ones.

    Modules are not garbage, and there are 200,000 objects in those of JAX and the trainer. In a
    process that has imported JAX before, which may hold garbage of its own, nothing is excluded.
    """
    if "jax" in sys.modules:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
