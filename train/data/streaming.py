"""Data that do not fit in memory: decoded on the host by Grain, batch by batch."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
from absl import flags

from flax_resnet.recipes import PREFIX
from train.runtime import limits
from train.runtime.errors import RunError, warn
from train.runtime.worker import announce_run

# Images per task. With one each, Grain's overhead would show beside the decoding of small
# images; with a whole batch, most threads would be idle at the start and at the end.
CHUNK = 32


def stream(
    load: Callable[[int, range], Any],
    batches: range,
    positions: range,
    threads: int,
    workers: int = 0,
    record_bytes: int = 0,
) -> Iterator[list[Any]]:
    """Yield the batches as lists of parts, which are prefetched.

    The parts do not depend on the number of threads and workers.

    Args:
      load: returns the part of a batch at some of its positions; called out of order. With
        workers it is pickled, and works on a copy of the objects it refers to.
      batches: the batches to load.
      positions: this process's positions in a batch.
      threads: decoding threads of all workers together; decoding releases the GIL.
      workers: worker processes; 0: threads of this process.
      record_bytes: size of a decoded record, to check whether shared memory suffices.

    Raises:
      RunError: a worker process was killed.
    """
    import grain  # here, since data in memory do not need it

    parts = -(-len(positions) // CHUNK)
    item_bytes = min(len(positions), CHUNK) * record_bytes

    def load_part(number: int) -> Any:
        batch, part = divmod(int(number), parts)
        return load(batch, positions[part * CHUNK : (part + 1) * CHUNK])

    # The batch numbers run through all epochs: Grain neither shuffles nor repeats.
    dataset = grain.MapDataset.range(batches.start * parts, batches.stop * parts).map(load_part)
    options = grain.ReadOptions(
        num_threads=-(-threads // max(1, workers)), prefetch_buffer_size=max(threads, parts)
    )
    loaded = dataset.to_iter_dataset(options)
    if workers:
        _mark_flags_parsed()
        announce_run()
        _send_recipes_by_value()
        # In the queues, the batches being assembled, and arrays that are not freed yet.
        needed = (4 * workers + 2 * parts + 50) * item_bytes
        if problem := limits.shared_memory(needed):
            warn(f"{problem}. Decoded images are sent through pipes, which is slower")
            options = grain.experimental.DatasetOptions(min_shm_size=2**62)
            loaded = grain.experimental.WithOptionsIterDataset(loaded, options)
        loaded = loaded.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_init_worker
        )
    iterator = iter(loaded)
    try:
        for _ in batches:
            yield [next(iterator) for _ in range(parts)]
    except RuntimeError as error:
        if problem := _describe_failure(error):
            raise RunError(problem) from error
        raise
    finally:
        iterator.close()


def _send_recipes_by_value() -> None:
    """Let worker processes get the functions and classes of recipes, which they cannot import."""
    for name, module in list(sys.modules.items()):
        if name.startswith(PREFIX):
            cloudpickle.register_pickle_by_value(module)


def _init_worker(worker: int, count: int) -> None:
    del worker, count
    _mark_flags_parsed()
    # A terminal or scheduler sends signals to all processes; the run handles them and then
    # ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _describe_failure(error: RuntimeError) -> str | None:
    """Return why a worker ended, from Grain's message; None for another error."""
    code = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    if not code:
        return None
    reason = {
        -signal.SIGBUS: "SIGBUS: /dev/shm is full; enlarge it (docker run --shm-size=8g)",
        -signal.SIGKILL: "SIGKILL: is the machine out of memory? Free some",
    }.get(int(code[1]), f"exit code {code[1]}: see its output above")
    return f"a decoding process ended by {reason}, or choose a smaller config.loader.workers"


def _mark_flags_parsed() -> None:
    """Let Grain read absl's flags, which raise an error before they are parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
