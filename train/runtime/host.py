"""What the C library does with memory that XLA gives back."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

# Numbers of mallopt's parameters in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")


def keep_freed() -> bool:
    """Lets the process keep what is freed, for runs on CPU; tells whether it does.

    XLA:CPU allocates a step's temporaries at each step, hundreds of MB, and glibc takes them from
    the system and gives them back every time: the system clears each page anew, which was a
    quarter of a ResNet-20's step (benchmarks/RESULTS.md). Kept, they are there already. They can
    be kept in the main arena alone, so all threads share it. The process then stays at its peak.

    To be called before JAX starts its threads. Does nothing beside accelerators, whose hosts
    decode images in many threads, nor with another C library, nor where the environment sets
    ``MALLOC_…`` or ``GLIBC_TUNABLES`` itself.
    """
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if chosen or not sys.platform.startswith("linux") or accelerated():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    keep = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 1 << 26))
    return all([mallopt(parameter, value) for parameter, value in keep])


def accelerated() -> bool:
    """Whether JAX would look for a GPU or TPU: its plugin is installed and not switched off."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def make_deterministic() -> None:
    """Asks XLA for operations that give the same bits each time; before JAX finds its devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    names = [flag.partition("=")[0] for flag in flags]
    flags += [flag for flag in _DETERMINISTIC if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join(flags)
