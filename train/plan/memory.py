"""Available memory, and memory usage of a process and of a compiled step, in bytes."""

import contextlib
import resource
import sys
from typing import Any, NamedTuple

import jax

from train.runtime.errors import RunError

# Files of control groups, versions 2 and 1: limit, usage, statistics; and the statistics of the
# page cache, which is part of the usage but is given up on demand.
_CGROUPS = (
    (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/memory.stat",
        ("inactive_file", "active_file"),
    ),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        ("total_inactive_file", "total_active_file"),
    ),
)


def resident_memory() -> int:
    """Return the current memory of this process; without /proc its peak."""
    return _kilobytes("/proc/self/status", "VmRSS") or peak_memory()


def peak_memory() -> int:
    """Return the peak memory of this process."""
    # ru_maxrss also counts the parent's memory at the time it started this process.
    if peak := _kilobytes("/proc/self/status", "VmHWM"):
        return peak
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def host_limit() -> int | None:
    """Return the memory that this process can use, including its current; None if unknown."""
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    if not available:
        return None
    for limit, usage, stat, page_cache in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
            used = _number(usage) - _sum_of_lines(stat, page_cache)
            available = min(available, _number(limit) - used)
    return resident_memory() + max(0, available)


class StepMemory(NamedTuple):
    """Memory of a compiled step on each device in bytes; donated arguments count once.

    Attributes:
      arguments: state, data and batch.
      other: results and temporary arrays.
    """

    arguments: int
    other: int

    @property
    def total(self) -> int:
        """All memory of the step."""
        return self.arguments + self.other


def step_memory(compiled: Any) -> StepMemory:
    """Return the memory of a compiled step.

    Raises:
      RunError: the compiler does not report it.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise RunError("the compiler does not report the memory usage of the step")
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return StepMemory(analysis.argument_size_in_bytes, results + analysis.temp_size_in_bytes)


def tree_bytes(tree: Any) -> int:
    """Return the size of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


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


def _sum_of_lines(path: str, names: tuple[str, ...]) -> int:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        lines = (line.split() for line in file)
        return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in names)
    return 0
