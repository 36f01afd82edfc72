"""Several processes as one run: how they find each other, agree, and end together.

Each process has its own devices, and its share of every batch; the first one writes. All go
through the same steps at the same time, so what one decides alone would leave the others waiting.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from train.runtime import compilation_cache, rendezvous
from train.runtime.errors import RunError, UsageError
from train.runtime.host import has_accelerator
from train.runtime.signals import StopRequest, ending_at_once

# A process that is gone without a word is missed after this; most are at once.
HEARTBEAT_SECONDS = 60
CONNECT_SECONDS = 300
# What tells, in an error of JAX, that others are the cause.
_OF_OTHERS = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "heartbeat", "onnect")

_connected = False  # asking JAX would make it look for devices
_own: int | None = None  # this process's number, once it is known
_status: int | None = None  # to leave with, once all is done


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that :func:`connect` takes."""
    group = parser.add_argument_group(
        "several processes",
        "Under SLURM, Open MPI 4, in indexed Kubernetes jobs and on TPU pods of GKE nothing is"
        " needed; elsewhere give each process all three.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process_id", type=int, metavar="I", help="which this is, from 0")


def connect(flags: argparse.Namespace) -> None:
    """Joins the other processes, by flags or by what the launcher says; alone, does nothing.

    To be called before JAX looks for devices. Raises UsageError for flags that make no sense and
    RunError where the others do not come.
    """
    if not wanted(flags):
        return
    if flags.coordinator is None:
        given = {"local_device_ids": _all_devices(os.environ)}
    else:
        given = {
            "coordinator_address": flags.coordinator,
            "num_processes": flags.num_processes,
            "process_id": flags.process_id,
            "cluster_detection_method": "deactivate",  # or JAX would share out the devices
        }
    if has_accelerator():
        compilation_cache.not_of_several()
    import jax

    global _connected, _own
    _own = flags.process_id
    # The launcher may end all for one that ends; stopping is told among the processes by the
    # steps themselves, for any signal and not SIGTERM alone.
    jax.config.update("jax_enable_preemption_service", False)
    if flags.coordinator is not None:  # launchers choose an address of their own
        with ending_at_once("while waiting for the other processes"):
            rendezvous.meet(
                flags.coordinator, flags.num_processes, flags.process_id, CONNECT_SECONDS
            )
    _die_with_a_word()
    try:
        with ending_at_once():
            jax.distributed.initialize(
                **given,
                initialization_timeout=CONNECT_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
            _own = jax.process_index()  # finds the devices of all, and so waits for all
        _connected = jax.process_count() > 1
        _check_devices(jax.devices())
    except RunError:
        raise
    except Exception as error:  # of JAX, of a launcher's own library
        text = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"cannot join the other processes, for which this one waits {CONNECT_SECONDS} s:"
            f" {text[:300]}"
        ) from error


def wanted(flags: argparse.Namespace) -> bool:
    """Whether flags or launcher say that this is one of several. Raises UsageError as above."""
    if (flags.coordinator, flags.num_processes, flags.process_id) != (None, None, None):
        _check_flags(flags)
        return True
    return launched_with_others(os.environ)


def launched_with_others(env: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX knows started this process as one of several."""

    def count(name: str) -> int:
        return int(env[name]) if env.get(name, "").isdigit() else 1

    if "SLURM_STEP_NODELIST" in env and "SLURM_PROCID" in env:  # by srun, not in its script
        return process_count("SLURM_NTASKS") > 1
    if "OMPI_MCA_orte_hnp_uri" in env:
        return process_count("OMPI_COMM_WORLD_SIZE") > 1
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return True
    return "," in env.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in env


def is_primary() -> bool:
    """Whether this process is the one that writes and speaks."""
    import jax

    return jax.process_index() == 0


def process_count() -> int:
    """How many processes there are."""
    import jax

    return jax.process_count()


def place() -> tuple[int, int]:
    """Which of how many this process is."""
    import jax

    return jax.process_index(), jax.process_count()


def allgather(value: Any) -> list[Any]:
    """What each process gives, JSON can hold, in the processes' order. All must call it."""
    if process_count() == 1:
        return [value]
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = process_allgather(np.int32(len(text)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(text)] = text
    rows = process_allgather(padded)
    return [
        json.loads(row[:size].tobytes().decode()) for row, size in zip(rows, sizes, strict=True)
    ]


@contextlib.contextmanager
def raise_if_any_failed() -> Iterator[None]:
    """Ends its block in all processes with an error where it does in one."""
    error: UsageError | RunError | None = None
    try:
        yield
    except (UsageError, RunError) as raised:
        error = raised
    others = allgather(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for process, text in enumerate(others):
        if text is not None:
            raise RunError(f"process {process} ended: {text}")


def assert_equal(what: str, value: Any) -> None:
    """Raises RunError in all processes where one has another value than the first."""
    first, *others = allgather(value)
    for process, other in enumerate(others, 1):
        if other == first:
            continue
        if isinstance(first, dict) and isinstance(other, dict):  # tell what differs alone
            names = [name for name in first | other if first.get(name) != other.get(name)]
            first, other = ({name: d.get(name) for name in names} for d in (first, other))
        raise RunError(
            f"processes 0 and {process} have to have the same {what}, but differ: {first} against"
            f" {other}"
        )


def run(command: Callable[[], int]) -> int:
    """Runs a command in this process, and ends it together with the others.

    What JAX raises where another process has gone in mid-step is told in a line. After an error
    the process ends at once: leaving in good order would wait for the others, which wait for
    this one. Gives the command's status where there are no others.
    """
    if not _connected:
        return command()
    import jax

    try:
        status = command()
        allgather("done")
    except (UsageError, RunError) as error:
        _end(f"error: {error}", status=2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        _end("error: interrupted", status=130)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        if any(word in reason for word in _OF_OTHERS):
            _end(f"error: {_lost()} ({reason[:200]})")
        _end(f"error: process {_place()} cannot go on: {reason[:400]}")
    except BaseException:
        traceback.print_exc()
        _end(f"error: process {_place()} ended in an unforeseen way")
    _leave(status)


def _leave(status: int) -> NoReturn:
    """Ends a process whose work is done, as all others' is.

    Not by jax.distributed.shutdown(), which keeps Python's lock while it waits for the others: one
    that dies meanwhile would leave this one hanging. The first process, which the others are
    connected to, goes last; one that is slower than that ends by the handler for abort().
    """
    global _status
    _status = status
    for number in StopRequest.SIGNALS:  # of a launcher that ends all once one has ended
        signal.signal(number, signal.SIG_IGN)
    if is_primary():
        time.sleep(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end(text: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    os._exit(status)


def _lost() -> str:
    return (
        f"process {_place()} lost another one, which ended or cannot be reached; see what that"
        " said. What is saved stays, and the same command continues"
    )


def _place() -> str:
    # Not by asking JAX, which might look for devices, and wait for those who are lost.
    return f"{'?' if _own is None else _own} on {socket.gethostname()}"


def _die_with_a_word() -> None:
    """Turns JAX's abort, where the others are lost, into a line and status 1.

    JAX's own threads call it once the heartbeats stop, and at once where process 0 is gone, which
    leaves no way for an exception: abort() ends a process right after its signal handler,
    which Python would run later. So the handler is a C function, which ctypes makes.
    """

    def abort(_: int) -> None:
        if _status is not None:
            os._exit(_status)
        _end(f"error: {_lost()}")

    global _on_abort  # ctypes does not keep it alive
    _on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(abort)
    c = ctypes.CDLL(None)
    c.signal.argtypes, c.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    c.signal(signal.SIGABRT, ctypes.cast(_on_abort, ctypes.c_void_p))


def _check_devices(devices: Sequence[Any]) -> None:
    counts = collections.Counter(device.process_index for device in devices)
    for process, number in sorted(counts.items()):
        if number != counts[0]:
            raise RunError(
                f"processes 0 and {process} have to have the same number of devices, but have"
                f" {counts[0]} and {number}"
            )


def _check_flags(flags: argparse.Namespace) -> None:
    if None in (flags.coordinator, flags.num_processes, flags.process_id):
        raise UsageError("--coordinator, --num_processes and --process_id come together")
    if flags.num_processes < 1:
        raise UsageError(f"--num_processes must be at least 1, not {flags.num_processes}")
    if not 0 <= flags.process_id < flags.num_processes:
        raise UsageError(
            f"--process_id must be 0 to {flags.num_processes - 1}, not {flags.process_id}"
        )
    host, _, port = flags.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"--coordinator must be HOST:PORT, such as node0:29500, not {flags.coordinator!r}"
        )


def _all_devices(env: Mapping[str, str]) -> list[int] | None:
    """All GPUs for the only task of a node; JAX would give it one, as where each GPU has a task."""
    alone = env.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0] == "1"
    visible = env.get("CUDA_VISIBLE_DEVICES", "")
    return list(range(len(visible.split(",")))) if alone and visible else None
