"""How much memory there is, and how much of it a process and a compiled step take, in bytes."""

from __future__ import annotations

import contextlib
import resource
import sys
from typing import Any, NamedTuple

import jax

from train.runtime.errors import RunError

# Of control groups, version 2 and 1: limit, use, and what of this are files' contents in memory,
# which give way.
_GROUPS = (
    (
        *("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        *("/sys/fs/cgroup/memory.stat", ("inactive_file", "active_file")),
    ),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        *("/sys/fs/cgroup/memory/memory.stat", ("total_inactive_file", "total_active_file")),
    ),
)


def resident() -> int:
    """What this process holds now; on systems without /proc the most that it held."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """The most that this process held."""
    # The kernel's own figure counts what the parent held when it started this process, too.
    found = _status("VmHWM")
    if found:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def host_limit() -> int | None:
    """What this process could hold: its own, and what nobody else uses. None: not known."""
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    if not available:
        return None
    for limit, used, stat, cached in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            held = _number(used) - _numbers(stat, cached)
            available = min(available, _number(limit) - held)
    return resident() + max(0, available)


def device_limit(device: jax.Device) -> int | None:
    """What JAX may take of an accelerator's memory; on a CPU, or where unknown, None."""
    return (device.memory_stats() or {}).get("bytes_limit")


class OfStep(NamedTuple):
    """A compiled step's bytes on each device: its arguments, and what it needs besides, for
    results and in between. What was donated counts once.
    """

    arguments: int
    besides: int

    @property
    def total(self) -> int:
        return self.arguments + self.besides


def of_step(compiled: Any) -> OfStep:
    """What a compiled step holds while it runs. Raises RunError where the compiler won't say."""
    told = compiled.memory_analysis()
    if told is None:
        raise RunError("the compiler does not tell how much memory the step needs")
    results = told.output_size_in_bytes - told.alias_size_in_bytes
    return OfStep(told.argument_size_in_bytes, results + told.temp_size_in_bytes)


def of_arrays(tree: Any) -> int:
    """What the arrays hold."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _status(name: str) -> int:
    return _kilobytes("/proc/self/status", name)


def _kilobytes(path: str, name: str) -> int:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return 0


def _number(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        return int(file.read())


def _numbers(path: str, names: tuple[str, ...]) -> int:
    """The sum of the named lines' numbers; 0 where there is no such file."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        lines = (line.split() for line in file)
        return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in names)
    return 0
