"""Worker processes end with the run that started them, however it ended."""

import functools
import multiprocessing
import os
import threading
import time

_PREFIX = "grain-"  # of the names of Grain's processes
_RUN = "FLAX_RESNET_WORKERS_OF"  # environment variable: the process that starts workers
_SECONDS = 0.5


def announce_run() -> None:
    """Let the workers that this process will start know which run they belong to."""
    os.environ[_RUN] = str(os.getpid())


@functools.cache
def exit_with_run() -> None:
    """In a worker, start a thread that ends it once the run has ended; elsewhere do nothing.

    The package ``train`` calls it first: hundreds of workers import libraries for minutes.
    """
    if multiprocessing.current_process().name.startswith(_PREFIX) and _RUN in os.environ:
        threading.Thread(target=_watch, args=(int(os.environ[_RUN]),), daemon=True).start()


def end_starting_workers() -> None:
    """End the workers of this process that still import; later ones ignore the signal."""
    for child in multiprocessing.active_children():
        if child.name.startswith(_PREFIX):
            child.terminate()


def _watch(run: int) -> None:
    while os.getppid() == run:
        time.sleep(_SECONDS)
    os._exit(1)
