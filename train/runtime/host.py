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

_LOOPBACK_NAMES = {
    *("localhost", "localhost.localdomain", "localhost4", "localhost6"),
    *("ip6-localhost", "ip6-loopback"),
}

_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")


def core_count() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decoding_threads() -> int:
    """Return how many threads decode images by default: one per core, and one that reads files."""
    return core_count() + 1


def max_images(pixels: int) -> int:
    """Return about how many images of a size a network can compute in this host's memory.

    At 1 KiB per pixel, which is four float32 maps of 64 channels.
    """
    if not hasattr(os, "sysconf"):  # Windows
        return 1024
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, memory // (1024 * pixels))


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
    """Return whether the address, or name of the loopback interface, is of this machine only.

    The machine's own name is not, though some systems map it to 127.0.1.1.
    """
    name = host.lower().removesuffix(".")
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:  # also 127.1 and 2130706433, which connect() accepts
        [(*_, address), *_] = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):  # ValueError: an empty or too long label
        return False
    return ipaddress.ip_address(address[0].removeprefix("::ffff:")).is_loopback


def bind_error(host: str | None, port: int) -> OSError | None:
    """Try to listen at all addresses of ``host`` (None: of this machine) and return the error."""
    flags = socket.AI_PASSIVE
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError as error:  # not every machine knows ip6-localhost
        return error
    for family, *_, address in addresses:
        try:
            socket.create_server(address[:2], family=family).close()
        except OSError as error:
            # IPv6 can be known to the system, but disabled.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return error
    return None
