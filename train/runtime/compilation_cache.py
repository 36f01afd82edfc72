"""JAX's persistent compilation cache, which makes later starts faster.

Loaded programs are the stored machine code, so results are bit-identical.
"""

import contextlib
import hashlib
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

from train.runtime.errors import RunError, warn
from train.runtime.files import check_writable, user_cache_dir
from train.runtime.host import core_count, has_accelerator

MAX_BYTES = 1 << 30
_MAX_SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"
_WRITE_SECONDS = 60  # that writing an entry takes at most
MIN_SECONDS = 0.2  # programs that compile faster are not worth a file
_FALSE = ("n", "no", "f", "false", "off", "0")  # as JAX reads its environment variables


def configure(choice: str = "auto") -> None:
    """Set the directory of the compilation cache, which JAX creates for the first program.

    JAX only warns of a cache that it cannot read or write, and compiles.

    Args:
      choice: ``"off"``, a directory, or ``"auto"``: JAX's environment variables
        (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE) if set, else the user's cache
        directory.

    Call it before anything is compiled, and preferably before JAX is imported.
    """
    if choice in ("off", ""):
        _set("jax_enable_compilation_cache", False)
        return
    if choice == "auto":
        disabled = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in _FALSE
        if disabled or "JAX_COMPILATION_CACHE_DIR" in os.environ:
            return
        folder = _default_dir()
    else:
        folder = os.path.abspath(choice)
        # Processes with GPUs must all find the same programs, whatever their CPUs.
        folder = folder if has_accelerator() else os.path.join(folder, _cpu_name())
        _set("jax_enable_compilation_cache", True)
    try:
        check_writable(folder, "compiled programs")
    except RunError as error:
        warn(
            f"{error}; set XDG_CACHE_HOME to another folder, or JAX_ENABLE_COMPILATION_CACHE=false"
        )
        return
    _set("jax_compilation_cache_dir", folder)
    if os.environ.get(_MAX_SIZE, str(MAX_BYTES)) == str(MAX_BYTES):  # not set by the user
        _set(_MAX_SIZE.lower(), MAX_BYTES if choice == "auto" else -1)
        if choice == "auto":
            _remove_incomplete(folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        _set("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def _remove_incomplete(folder: str) -> None:
    """Remove entries that a killed process has not completed.

    JAX writes an entry's time of access last, and does not write an entry that exists. With its
    size limit, JAX 0.10 could never write again.
    """
    with contextlib.suppress(OSError):
        for entry in Path(folder).glob("*-cache"):
            complete = entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists()
            if not complete and time.time() - entry.stat().st_mtime > _WRITE_SECONDS:
                entry.unlink()


def disable_default() -> None:
    """Disable the cache for GPUs of several processes, unless the user chose its directory.

    Only process 0 writes, so with disks of their own it would load what the others compile, and
    XLA's autotuning makes them wait for its part of the work.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") == _default_dir():
        _set("jax_enable_compilation_cache", False)


def _default_dir() -> str:
    return os.path.join(user_cache_dir("compiled"), _cpu_name())


def _cpu_name() -> str:
    """Return a name for the CPU's features and number of cores, which JAX's keys lack.

    Code for another CPU would end at the first instruction that this one lacks, and XLA:CPU
    divides loops into as many parts as there were cores.
    """
    features = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = re.findall(r"(?m)^(?:model name|flags|Features|CPU part)\s*:.*$", file.read())
        features += "".join(sorted(set(lines)))
    digest = hashlib.sha256(features.encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}-{core_count()}-cores"


def _set(name: str, value: Any) -> None:
    """Set an option of JAX, imported or not, in this process and those it starts."""
    os.environ[name.upper()] = str(value)
    if "jax" in sys.modules:
        import jax

        jax.config.update(name, value)
