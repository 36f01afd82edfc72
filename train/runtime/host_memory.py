"""Memory of this machine and of this process, in bytes."""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# Of control groups, versions 2 and 1: limit, usage, and the page cache in memory.stat, which is
# part of the usage but is given up on demand.
_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        *("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("total_inactive_file", "total_active_file"),
    ),
)
_CGROUPS = Path("/sys/fs/cgroup")


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
    for folder in control_groups("memory"):
        for limit, usage, page_cache in _FILES:
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
                used = read_number(folder / usage) - _sum_of_lines(folder, page_cache)
                available = min(available, read_number(folder / limit) - used)
    return resident_memory() + max(0, available)


def swap() -> int:
    """Return the free swap space."""
    return _kilobytes("/proc/meminfo", "SwapFree")


def address_space() -> int:
    """Return the size of this process's address space."""
    return _kilobytes("/proc/self/status", "VmSize")


def control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those around it."""
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if not controllers or controller in controllers.split(","):
                root = _CGROUPS / controller if controllers else _CGROUPS
                inner = root / path.lstrip("/")
                yield from (inner, *(p for p in inner.parents if p.is_relative_to(root)))
    yield from (_CGROUPS, _CGROUPS / controller)  # of a container, which sees other paths


def read_number(path: Path) -> int:
    """Return the number in a file; raise OSError or ValueError if there is none."""
    return int(path.read_text(encoding="utf-8"))


def _kilobytes(path: str, name: str) -> int:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return 0


def _sum_of_lines(folder: Path, names: tuple[str, ...]) -> int:
    with contextlib.suppress(OSError), open(folder / "memory.stat", encoding="utf-8") as file:
        lines = (line.split() for line in file)
        return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in names)
    return 0
