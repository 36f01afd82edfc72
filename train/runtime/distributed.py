"""Multi-process runs: connect the processes, exchange values, and end them together.

Each process has its own devices and an equal share of every global batch; process 0 writes files
and prints. All processes execute the same steps at the same time, so a decision that only one of
them made would leave the others waiting.
"""

import argparse
import collections
import contextlib
import ctypes
import errno
import functools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from flax_resnet.text import error_reason
from train.runtime import compilation_cache
from train.runtime.errors import RunError, UsageError, print_line, warn
from train.runtime.host import bind_error, has_accelerator, is_loopback
from train.runtime.signals import StopRequest

CONNECT_SECONDS = 300
HEARTBEAT_SECONDS = 60  # until a lost process is noticed; most are noticed immediately
PORT_SECONDS = 3  # to wait for a port in use: process 0 of an earlier run exits last
_QUIET_SECONDS = 2  # before a line reports that this process waits
# Parts of JAX's error messages when another process is the cause.
_PEER_ERRORS = "Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|heartbeat|[Cc]onnect"

# Kept here, since a call of JAX would initialize its devices.
_connected = False
_process_id: int | None = None
_exit_status: int | None = None  # once the work of all processes is done


# Flags and launchers -------------------------------------------------------------------------


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that :func:`connect` uses."""
    group = parser.add_argument_group(
        "multi-process runs",
        "Under SLURM, Open MPI 4, in indexed Kubernetes jobs and on TPU pods of GKE no flags are"
        " needed; elsewhere give each process all three.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num_processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process_id", type=int, metavar="I", help="number of this one, from 0")


def is_multiprocess(flags: argparse.Namespace) -> bool:
    """Return whether flags or launcher make this one of several processes.

    Raises:
      UsageError: the flags are incomplete or invalid.
    """
    if (flags.coordinator, flags.num_processes, flags.process_id) != (None, None, None):
        _check_flags(flags)
        return True
    return is_launched_with_others(os.environ)


def is_launched_with_others(env: Mapping[str, str]) -> bool:
    """Return whether a launcher that JAX supports started this process as one of several."""

    def number(name: str) -> int:
        return int(env[name]) if env.get(name, "").isdigit() else 1

    if "SLURM_STEP_NODELIST" in env and "SLURM_PROCID" in env:  # in srun, not in its batch script
        return number("SLURM_NTASKS") > 1
    if "OMPI_MCA_orte_hnp_uri" in env:
        return number("OMPI_COMM_WORLD_SIZE") > 1
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return True
    return "," in env.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in env


def _check_flags(flags: argparse.Namespace) -> None:
    if None in (flags.coordinator, flags.num_processes, flags.process_id):
        raise UsageError("--coordinator, --num_processes and --process_id must be given together")
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


def _local_device_ids(env: Mapping[str, str]) -> list[int] | None:
    """Return all GPUs for the only task of a SLURM node; JAX by itself would use one per task."""
    is_only_task = env.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0] == "1"
    visible = env.get("CUDA_VISIBLE_DEVICES", "")
    return list(range(len(visible.split(",")))) if is_only_task and visible else None


# Connecting ----------------------------------------------------------------------------------


def connect(flags: argparse.Namespace) -> None:
    """Connect to the other processes, given by flags or launcher; a single process does nothing.

    Call it before JAX initializes its devices. The process exits with status 1 and one line if
    the others do not connect within ``CONNECT_SECONDS``.

    Raises:
      UsageError: the flags are incomplete or invalid.
      RunError: the processes cannot be connected, or do not belong together.
    """
    if not is_multiprocess(flags):
        return
    settings: dict[str, Any] = {"local_device_ids": _local_device_ids(os.environ)}
    if flags.coordinator is not None:
        loopback = is_loopback(_split_address(flags.coordinator)[0])
        settings = {
            "coordinator_address": flags.coordinator,
            "num_processes": flags.num_processes,
            "process_id": flags.process_id,
            "coordinator_bind_address": flags.coordinator if loopback else None,
            "cluster_detection_method": "deactivate",  # or JAX would divide the devices
        }
        if flags.process_id == 0:
            _check_port(flags.coordinator)
        if loopback:
            _exchange_only_at(_split_address(flags.coordinator)[0])
    if has_accelerator():
        compilation_cache.disable_default()
    import jax

    global _connected, _process_id
    _process_id = flags.process_id
    # Preemption is agreed on in the steps, for any signal; JAX's service handles only SIGTERM,
    # and a launcher may end all processes after one has ended.
    jax.config.update("jax_enable_preemption_service", False)
    _handle_abort()
    done = threading.Event()
    threading.Thread(target=_limit_waiting, args=(flags, done), daemon=True).start()
    try:
        jax.distributed.initialize(
            **settings,
            # Longer than ours: JAX aborts with a stack trace.
            initialization_timeout=CONNECT_SECONDS + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
        _process_id = jax.process_index()  # waits for the devices of all processes
        _connected = jax.process_count() > 1
    except Exception as error:  # from JAX or a launcher's library
        raise RunError(f"cannot connect to other processes: {error_reason(error, 300)}") from error
    finally:
        done.set()
    if flags.coordinator is not None:
        assert_equal("--num_processes", flags.num_processes)
    _check_device_counts(jax.devices())


def _exchange_only_at(host: str) -> None:
    """Make the connections between devices use a loopback address, not that of the host's name."""
    try:  # JAX has no option for it
        from jax._src.lib import _jax

        make = _jax.make_gloo_tcp_collectives
        _jax.make_gloo_tcp_collectives = functools.partial(make, hostname=host)
    except (ImportError, AttributeError):
        warn("with this version of JAX, CPU devices also exchange values at the host's own address")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")


def _check_port(address: str) -> None:
    """Raise RunError if the coordinator cannot listen at ``address``.

    JAX does not check: its coordinator shares a port with that of another run, whose processes
    would meet there, and crashes with a segmentation fault at a port of another program.
    """
    host, port = _split_address(address)
    deadline = time.monotonic() + PORT_SECONDS
    while error := bind_error(host if is_loopback(host) else None, port):
        in_use = error.errno == errno.EADDRINUSE
        if not in_use or time.monotonic() > deadline:
            reason = "is already in use" if in_use else f"cannot be opened ({error.strerror})"
            raise RunError(f"port {port} of {host} {reason}; choose another for --coordinator")
        time.sleep(0.1)


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _limit_waiting(flags: argparse.Namespace, done: threading.Event) -> None:
    """Report that this process waits for others, and exit if ``done`` is not set in time.

    It runs in a thread, since nothing interrupts JAX's wait.
    """
    if not done.wait(_QUIET_SECONDS):
        text = f"waiting up to {CONNECT_SECONDS:g} s for {_describe_missing(flags)}"
        print_line(text, sys.stderr)
    if not done.wait(CONNECT_SECONDS - _QUIET_SECONDS):
        missing = _describe_missing(flags)
        if not done.is_set():
            _exit(f"error: timed out after {CONNECT_SECONDS:g} s waiting for {missing}")


def _describe_missing(flags: argparse.Namespace) -> str:
    """Return which processes this one waits for, as far as it can know."""
    if not flags.process_id:  # 0, or None with a launcher
        return f"other processes at {flags.coordinator or 'the addresses of the launcher'}"
    reason: Any = "the port is open; does it belong to another program?"
    try:
        socket.create_connection(_split_address(flags.coordinator), timeout=5).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: not a name of a host
        reason = getattr(error, "strerror", None) or error
    return f"process 0 or others at {flags.coordinator} ({reason})"


def _check_device_counts(devices: Sequence[Any]) -> None:
    """Raise RunError unless all processes have the same number of devices."""
    counts = collections.Counter(device.process_index for device in devices)
    for process, number in sorted(counts.items()):
        if number != counts[0]:
            raise RunError(
                f"processes 0 and {process} must have the same number of devices, but have"
                f" {counts[0]} and {number}"
            )


# Exchanging values ---------------------------------------------------------------------------


def is_primary() -> bool:
    """Return whether this is process 0, which writes files and prints."""
    return process_index() == 0


def process_index() -> int:
    """Return the number of this process, from 0."""
    import jax

    return jax.process_index()


def process_count() -> int:
    """Return the number of processes."""
    import jax

    return jax.process_count()


def allgather(value: Any) -> list[Any]:
    """Return the JSON-serializable values of all processes, by process; all must call it."""
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
    """Raise an error in all processes if the block raises UsageError or RunError in any."""
    error: UsageError | RunError | None = None
    try:
        yield
    except (UsageError, RunError) as raised:
        error = raised
    failures = allgather(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for process, failure in enumerate(failures):
        if failure is not None:
            raise RunError(f"process {process} failed: {failure}")


def assert_equal(name: str, value: Any) -> None:
    """Raise RunError in all processes unless all have the same value as process 0."""
    first, *others = allgather(value)
    for process, other in enumerate(others, 1):
        if other == first:
            continue
        if isinstance(first, dict) and isinstance(other, dict):  # show only the differences
            keys = [key for key in first | other if first.get(key) != other.get(key)]
            first, other = ({key: d.get(key) for key in keys} for d in (first, other))
        raise RunError(
            f"processes 0 and {process} must have the same {name}, but differ: {first} and {other}"
        )


# Ending --------------------------------------------------------------------------------------


def run_collectively(command: Callable[[], int]) -> int:
    """Run a command in this process and end it together with the others.

    JAX's error after another process is lost becomes one line. After an error the process exits
    at once: an orderly exit would wait for the others, which wait for this one. With a single
    process, return the command's status.
    """
    if not _connected:
        return command()
    import jax

    try:
        status = command()
        allgather("done")
    except (UsageError, RunError) as error:
        _exit(f"error: {error}", status=2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        _exit("error: interrupted", status=130)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        is_lost = re.search(_PEER_ERRORS, reason)
        text = _lost_message() if is_lost else f"process {_describe_self()} cannot continue"
        _exit(f"error: {text} ({reason[:400]})")
    except BaseException:
        traceback.print_exc()
        _exit(f"error: process {_describe_self()} ended with an unexpected error")
    _exit_successfully(status)


def _exit_successfully(status: int) -> NoReturn:
    """Exit after all processes have finished.

    Not by jax.distributed.shutdown(), which holds the GIL while it waits for the others: if one
    of them died meanwhile, this process would hang. Process 0, which the others are connected to,
    exits last; a process that is even slower exits in the handler of abort().
    """
    global _exit_status
    _exit_status = status
    for number in StopRequest.SIGNALS:  # of a launcher that ends all processes after the first
        signal.signal(number, signal.SIG_IGN)
    if is_primary():
        time.sleep(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _exit(text: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    print_line(text, sys.stderr)
    os._exit(status)


def _lost_message() -> str:
    return (
        f"process {_describe_self()} lost the connection to another process, which ended, cannot"
        " be reached or was started twice; see its output. Checkpoints are kept, and the same"
        " command resumes"
    )


def _describe_self() -> str:
    # Not by a call of JAX, which might initialize its devices and wait for lost processes.
    return f"{'?' if _process_id is None else _process_id} on {socket.gethostname()}"


def _handle_abort() -> None:
    """Turn JAX's abort(), which follows the loss of another process, into one line and status 1.

    Threads of JAX call it when heartbeats stop, and at once if process 0 is gone; no exception
    is raised. abort() ends the process right after its signal handler, and Python would run a
    handler of its own later, so the handler is a C function made by ctypes.
    """

    def handle(_: int) -> None:
        if _exit_status is not None:
            os._exit(_exit_status)
        if _connected:
            _exit(f"error: {_lost_message()}")
        _exit(
            f"error: process {_describe_self()} cannot connect to the other processes; is"
            " --process_id unique, and --num_processes the same in all? See JAX's error above"
        )

    global _abort_handler  # ctypes does not keep a reference
    _abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    c = ctypes.CDLL(None)
    c.signal.argtypes, c.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    c.signal(signal.SIGABRT, ctypes.cast(_abort_handler, ctypes.c_void_p))
