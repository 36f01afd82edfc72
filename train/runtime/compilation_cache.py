"""Compiled programs are kept in the user's cache directory, so that later starts are quicker.

JAX does that, with its persistent compilation cache; here it is told where, and looked after.
What is loaded is the machine code that was stored, so results are the same bits.

A folder for each kind of processor, and number of cores: JAX's key tells neither. XLA loads code
for another processor with a line in the log, and ends at the first instruction that this one
lacks; and on CPU it cuts its loops into as many parts as there were cores.

JAX's own limit on size is not used: it takes a lock for each reading, which on network disks may
not be had, and a process that is killed between its two files leaves it unable to write for good.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.runtime.errors import warn
from train.runtime.host import has_accelerator

MOST_BYTES = 1 << 30
MIN_SECONDS = 0.2  # to compile: what is quicker is not worth a file
_NO = ("n", "no", "f", "false", "off", "0")  # as JAX reads its variables
_TROUBLE = r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (.*)"

_own: str | None = None  # the folder that "auto" chose


def user_cache(*parts: str) -> str:
    """A place in the folder that the user's programs keep such things in."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "flax_resnet", *parts)


def keep(choice: str = "auto") -> None:
    """Has JAX load compiled programs from disk, and keep new ones there.

    Args:
      choice: ``"off"``, a folder, or ``"auto"``: what the variables of JAX say
        (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE), else the user's cache directory.

    To be called before anything is compiled, and best before JAX is imported. Where the folder
    cannot be written it says so, and all is compiled as without.
    """
    if choice in ("off", ""):
        _set("jax_enable_compilation_cache", False)
        return
    if choice == "auto":
        enabled = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower()
        if enabled in _NO or "JAX_COMPILATION_CACHE_DIR" in os.environ:
            return
    own = user_cache("compiled") if choice == "auto" else os.path.abspath(choice)
    # Processes with GPUs have to find the same, so what they all name is taken as it is.
    as_it_is = choice != "auto" and has_accelerator()
    folder = own if as_it_is else os.path.join(own, _processor())
    try:
        # What lies there is run, so nobody else may write it.
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} may not be written")
    except OSError as error:
        warn(
            f"compiled programs cannot be kept: {error}; XDG_CACHE_HOME names another folder, and"
            " JAX_ENABLE_COMPILATION_CACHE=false does without"
        )
        return
    if choice == "auto":
        global _own
        _own = folder
        prune(own)  # which is this project's alone
    _set("jax_compilation_cache_dir", folder)
    _set("jax_enable_compilation_cache", True)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        _set("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    _mend(folder)


def not_of_several() -> None:
    """Leaves the user's folder alone on GPUs of several processes, unless it was asked for.

    Only the first process writes, so that on disks of their own it would find what the others have
    to compile; and XLA's autotuning has them wait for its part of the work.
    """
    if _own is not None and os.environ.get("JAX_COMPILATION_CACHE_DIR") == _own:
        _set("jax_enable_compilation_cache", False)


def prune(folder: str, most: int = MOST_BYTES) -> None:
    """Removes files of ``folder``, those first that were not read for longest, until ``most`` bytes
    are left. Others may read, write and prune there at the same time.
    """
    files = []
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            if path.is_file():
                files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def _processor() -> str:
    """A name for what code is compiled for: the processor's features, and how many cores."""
    features = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = re.findall(r"(?m)^(?:model name|flags|Features|CPU part)\s*:.*$", file.read())
        features += "".join(sorted(set(lines)))
    digest = hashlib.sha256(features.encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}-{_cores()}"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _set(name: str, value: Any) -> None:
    """Sets an option of JAX, for its processes, too, whether it is imported yet or not."""
    os.environ[name.upper()] = str(value)
    if "jax" in sys.modules:
        import jax

        jax.config.update(name, value)


def _mend(folder: str) -> None:
    """Has an entry that cannot be read removed, which JAX then writes anew, and tells once where
    one cannot be written. JAX warns of both, and compiles.
    """
    pattern = re.compile(_TROUBLE, re.DOTALL)
    warnings.filterwarnings("always", r"Error (reading|writing) persistent compilation cache")
    show: Callable[..., None] = warnings.showwarning
    told: list[str] = []

    def hear(message: Warning | str, *where: Any, **kwargs: Any) -> None:
        trouble = pattern.match(str(message))
        if trouble is None:
            show(message, *where, **kwargs)
            return
        kind, program, reason = trouble.groups()
        if kind == "reading":
            for path in Path(folder).glob(f"{_escape(program)}-*"):
                with contextlib.suppress(OSError):
                    path.unlink()
        elif not told:
            told.append(reason)
            warn(f"compiled programs cannot be kept: {' '.join(reason.split())[:200]}")

    warnings.showwarning = hear


def _escape(name: str) -> str:
    """A name as glob takes it literally."""
    return re.sub(r"([*?[])", r"[\1]", name)
