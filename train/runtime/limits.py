"""Limits of this machine, compared with what a run certainly needs.

Each function returns one line about what is missing with the way out, or None. The needs are lower
bounds: nothing is refused that would have worked.
"""

import contextlib
import multiprocessing
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from train.runtime import host_memory
from train.runtime.files import existing_parent
from train.runtime.formatting import format_bytes

SHARED_MEMORY = "/dev/shm"
# Measured for each of Grain's workers, with some reserve, of the process that starts them (files)
# and of the worker (memory, threads).
WORKER_FILES = 9
WORKER_BYTES = 60 << 20
WORKER_THREADS = 5
MIN_FILES = 30  # that a run without workers opens
ARRAY_RECORD_THREADS = 65  # of the library's only pool


def memory(needed: int, workers: int) -> str | None:
    """Check the memory for ``needed`` bytes of images beside the worker processes."""
    limit = host_memory.host_limit()
    spare = None if limit is None else limit - host_memory.resident_memory() + host_memory.swap()
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:  # of this process
        left = space - host_memory.address_space() + workers * WORKER_BYTES
        spare = left if spare is None else min(spare, left)
    needed += workers * WORKER_BYTES
    if spare is None or needed <= spare:
        return None
    processes = f" and {workers} decoding processes" if workers else ""
    return (
        f"images{processes} need at least {format_bytes(needed)} of memory, and"
        f" {format_bytes(max(0, spare))} are available: choose a smaller config.batch_size,"
        " config.loader.device_cache_gib or config.loader.workers"
    )


def open_files(workers: int) -> str | None:
    """Check the number of open files, after raising the limit as far as the system allows."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MIN_FILES + WORKER_FILES * workers
    if limit < most:
        with contextlib.suppress(OSError, ValueError):
            raised = most if most != resource.RLIM_INFINITY else max(limit, 1 << 16)
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
            limit = raised
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return None
    way_out = ", or choose a smaller config.loader.workers" if workers else ""
    return (
        f"the run opens at least {needed} files, and the limit is {limit}: raise it (ulimit -n"
        f" {2 * needed}){way_out}"
    )


def processes(workers: int) -> str | None:
    """Check the number of processes and threads for the workers."""
    needed = workers * WORKER_THREADS
    spare = min(_spare_processes(), default=None)
    if not workers or spare is None or needed <= spare:
        return None
    return (
        f"config.loader.workers={workers} need at least {needed} processes and threads, and"
        f" {max(0, spare)} more may run: raise the limit (ulimit -u, or that of the container), or"
        " choose fewer workers"
    )


def array_record_threads() -> str | None:
    """Check that the threads of ArrayRecord can start; if they cannot, it waits forever."""
    done, started = threading.Event(), []
    try:
        for _ in range(ARRAY_RECORD_THREADS):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        return (
            f"reading ArrayRecord files takes {ARRAY_RECORD_THREADS} threads, and only"
            f" {len(started)} can start: raise the limit of memory (ulimit -v) or of processes"
            " (ulimit -u, or that of the container)"
        )
    finally:
        done.set()
        for thread in started:
            thread.join()
    return None


def _spare_processes() -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit != resource.RLIM_INFINITY and os.getuid() != 0:  # root is exempt
        own = [path for path in Path("/proc").glob("[0-9]*") if _owner(path) == os.getuid()]
        yield limit - sum(_count_threads(path) for path in own)
    for folder in host_memory.control_groups("pids"):
        with contextlib.suppress(OSError, ValueError):
            yield host_memory.read_number(folder / "pids.max") - host_memory.read_number(
                folder / "pids.current"
            )


def _owner(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_uid
    return None


def _count_threads(path: Path) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(path / "task"))
    return 0


def shared_memory(needed: int) -> str | None:
    """Check the space for arrays that worker processes share with this one."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            return (
                f"{SHARED_MEMORY} has {format_bytes(free)} free for the {format_bytes(needed)} of"
                " config.loader.workers: enlarge it (docker run --shm-size=8g), or choose fewer"
            )
    return None


def semaphores(workers: int) -> str | None:
    """Check that the system has semaphores, which worker processes need."""
    try:
        if workers:
            multiprocessing.get_context("spawn").Semaphore()
    except OSError as error:
        return (
            f"config.loader.workers={workers} need {SHARED_MEMORY}, which cannot be written"
            f" ({error.strerror or error}): mount it, or set config.loader.workers=0"
        )
    return None


def disk_space(folder: str, checkpoint_bytes: int, count: int) -> str | None:
    """Check the space for ``count`` checkpoints, and their size as files."""
    needed, free = checkpoint_bytes * count, shutil.disk_usage(existing_parent(folder)).free
    if free < needed:
        return (
            f"checkpoints in {folder!r} need {format_bytes(needed)} and the disk has"
            f" {format_bytes(free)} free; free some space, or choose another --workdir or a"
            " smaller config.checkpoint.max_to_keep"
        )
    return None


def file_size(folder: str, largest: int) -> str | None:
    """Check the limit of the size of a file, for an array of ``largest`` bytes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY or largest <= limit:
        return None
    return (
        f"checkpoints in {folder!r} have files of at least {format_bytes(largest)}, and the limit"
        f" is {format_bytes(limit)}: raise it (ulimit -f)"
    )


def name_encoding(path: str, name: str) -> str | None:
    """Check that libraries in C++, which expect UTF-8, find the path that Python does."""
    try:
        if path.encode() == os.fsencode(path):
            return None
    except UnicodeEncodeError:
        pass
    return (
        f"{name} {path!r} cannot be written in this locale, or is not UTF-8: set PYTHONUTF8=1 (or"
        " LC_ALL=C.UTF-8), or choose another name"
    )


def temporary_folder() -> str | None:
    """Check that there is a folder for temporary files."""
    try:
        tempfile.gettempdir()
    except OSError:
        return "there is no folder for temporary files: set TMPDIR to one that can be written"
    return None
