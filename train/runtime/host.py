"""This machine: cores, accelerators, memory allocator, XLA's flags and network ports."""

import ctypes
import errno
import importlib.metadata
import importlib.util
import ipaddress
import os
import socket
import sys

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8

_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")


def core_count() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_accelerator() -> bool:
    """Return whether JAX would look for a GPU or TPU: its plugin is installed and enabled."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory, for runs on CPU, and return whether it does.

    XLA:CPU allocates hundreds of MB of temporaries in each step. By default glibc requests them
    from the system and returns them every time, and the system clears each page, which took a
    quarter of a ResNet-20 step (benchmarks/RESULTS.md). glibc can keep memory only in the main
    arena, so all threads share it. The process stays at its peak memory.

    Call it before JAX starts its threads. It does nothing if there is an accelerator, since such
    hosts decode images in many threads, with another C library, or if the environment sets
    ``MALLOC_…`` or ``GLIBC_TUNABLES``.
    """
    configured = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if configured or not sys.platform.startswith("linux") or has_accelerator():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 1 << 26))
    return all([mallopt(parameter, value) for parameter, value in settings])


def use_deterministic_ops() -> None:
    """Make XLA choose deterministic GPU operations. Call it before JAX initializes its devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    names = [flag.partition("=")[0] for flag in flags]
    flags += [flag for flag in _DETERMINISTIC if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join(flags)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the host name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_error(host: str | None, port: int) -> OSError | None:
    """Try to listen at all addresses of ``host`` (None: of this machine) and return the error."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in addresses:
        try:
            socket.create_server(address[:2], family=family).close()
        except OSError as error:
            # IPv6 can be known to the system, but disabled.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return error
    return None
