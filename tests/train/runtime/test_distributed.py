"""Connections between processes on one machine, and what launchers say of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port
from tests.train.runtime.processes import ended
from tests.train.test_main import wait_until
from train.data.sampler import ProcessShard
from train.runtime import distributed
from train.runtime.cli import Parser
from train.runtime.errors import RunError, UsageError
from train.runtime.host import is_loopback


class Peers:
    """Processes that only connect and wait, with short timeouts."""

    def __init__(self):
        self.started = []

    def start(self, address, count, process, seconds=60):
        script = (
            "import argparse, signal\n"
            "from train.runtime import cli, distributed, signals\n"
            f"distributed.CONNECT_SECONDS, distributed.HEARTBEAT_SECONDS = {seconds}, 10\n"
            "distributed._QUIET_SECONDS = distributed.PORT_SECONDS = 0.5\n"
            f"flags = dict(coordinator={address!r}, num_processes={count}, process_id={process})\n"
            "def main():\n"
            "    distributed.connect(argparse.Namespace(**flags))\n"
            "    signal.signal(signal.SIGUSR1, lambda *_: None)\n"
            "    print('ready', flush=True)\n"
            "    return distributed.run_collectively(lambda: signal.pause() or 0)\n"
            "cli.run_command(main)\n"
        )
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        self.started.append(subprocess.Popen([sys.executable, "-c", script], **pipes))
        return self.started[-1]

    def connected(self, process):
        lines = iter(process.stdout.readline, "")
        return any(line == "ready\n" for line in lines)

    def kill(self):
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.kill()


def error_line(process, status=1):
    """Return the last line of stderr of a process that exits with ``status`` and an error."""
    [(code, stdout, stderr)] = ended([process])
    last = stderr.splitlines()[-1]
    assert code == status and last.startswith("error: ") and "Traceback" not in stderr, stderr
    assert "ready\n" not in stdout
    return last


def test_missing_processes_are_reported_after_the_timeout(peers):
    address = f"localhost:{free_port()}"
    zero, two = (peers.start(address, 3, process, seconds=6) for process in (0, 2))
    other = f"localhost:{free_port()}"
    one = peers.start(other, 2, 1, seconds=4)
    expected = f"error: timed out after 6 s waiting for other processes at {address}"
    assert error_line(zero) == expected
    assert "timed out after 6 s waiting for" in error_line(two)
    assert error_line(one) == (
        f"error: timed out after 4 s waiting for process 0 or others at {other}"
        " (Connection refused)"
    )


def test_a_port_of_another_program_ends_all_processes_with_a_message(peers):
    with socket.create_server(("127.0.0.1", 0)) as program:
        port = program.getsockname()[1]
        zero, one = (peers.start(f"127.0.0.1:{port}", 2, i, seconds=5) for i in (0, 1))
        message = f"error: port {port} of 127.0.0.1 is already in use; choose another for"
        assert error_line(zero) == f"{message} --coordinator"
        assert "process 0" in (last := error_line(one)) and "belong to another program" in last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits(peers, number):
    address = f"localhost:{free_port()}"
    process = peers.start(address, 3, 0)
    waiting = f"waiting up to 60 s for other processes at {address}\n"
    assert process.stderr.readline() == waiting
    process.send_signal(number)
    [(status, _, stderr)] = ended([process], seconds=20)
    if number == signal.SIGINT:
        assert (status, stderr) == (130, "error: interrupted\n")
    else:
        assert status == -number


def test_an_interrupt_ends_a_connected_process(peers):
    address = f"localhost:{free_port()}"
    run = [peers.start(address, 2, process) for process in (0, 1)]
    assert all(peers.connected(process) for process in run)
    run[1].send_signal(signal.SIGINT)
    [(status, _, stderr)] = ended(run[1:], seconds=20)
    assert (status, stderr.splitlines()[-1]) == (130, "error: interrupted")


def test_a_process_number_used_twice_is_reported(peers):
    address = f"localhost:{free_port()}"
    run = [peers.start(address, 3, process, seconds=20) for process in (0, 1, 1)]
    wait_until(run[0], lambda: any(process.poll() is not None for process in run[1:]))
    [first] = [process for process in run[1:] if process.poll() is not None]
    assert "is --process_id unique" in error_line(first)


def test_different_numbers_of_processes_are_reported(peers):
    address = f"localhost:{free_port()}"
    run = [peers.start(address, count, process) for process, count in enumerate((2, 3))]
    for process in run:
        assert "must have the same --num_processes, but differ: 2 and 3" in error_line(process)
    address = f"localhost:{free_port()}"
    zero, two = peers.start(address, 2, 0, seconds=20), peers.start(address, 3, 2)
    assert "--num_processes the same in all" in error_line(two)
    assert "timed out after 20 s waiting for other processes" in error_line(zero)


def test_a_second_start_of_process_0_leaves_the_run_alone(peers):
    address = f"localhost:{free_port()}"
    run = [peers.start(address, 2, process) for process in (0, 1)]
    assert all(peers.connected(process) for process in run)
    assert "is already in use" in error_line(peers.start(address, 2, 0))
    time.sleep(0.5)
    assert [process.poll() for process in run] == [None, None]


def test_an_idle_process_exits_when_another_is_lost(peers):
    """JAX's threads abort while the process does something else."""
    address = f"localhost:{free_port()}"
    run = [peers.start(address, 2, process) for process in (0, 1)]
    assert all(peers.connected(process) for process in run)
    run[0].kill()
    last = error_line(run[1])
    assert "process 1 on" in last and "lost the connection to another process" in last


def listening(processes):
    """Return ``(address, port)`` of all TCP sockets at which processes listen."""
    inodes = {
        os.readlink(file)
        for process in processes
        for file in Path(f"/proc/{process.pid}/fd").iterdir()
        if file.is_symlink()
    }
    found = set()
    for family, file in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path("/proc/net", file).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in inodes:
                address, port = columns[1].split(":")
                words = bytes.fromhex(address)
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                name = socket.inet_ntop(family, packed).removeprefix("::ffff:")
                found.add((name, int(port, 16)))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("LOCALHOST", {"127.0.0.1", "::1"}),
        ("127.0.0.2", {"127.0.0.2"}),
        ("[::1]", {"::1"}),
    ],
)
def test_a_loopback_coordinator_listens_only_there(peers, host, addresses):
    """Also for collectives, where JAX would listen at the address of the machine's name."""
    address = f"{host}:{free_port()}"
    run = [peers.start(address, 2, process) for process in (0, 1)]
    assert all(peers.connected(process) for process in run)
    sockets = listening(run)
    assert len(sockets) >= 3 and {name for name, _ in sockets} <= addresses


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_foreign_connections_do_not_end_a_run(peers):
    """Idle ones, a port scan, HTTP and garbage, while the processes connect and later."""
    port, foreign = free_port(), []
    run = [peers.start(f"localhost:{port}", 2, 0)]

    def disturb(ports):
        for number in ports:
            for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 999, *[b""] * 50):
                foreign.append(socket.create_connection(("localhost", number), timeout=5))
                foreign[-1].sendall(data)
            socket.create_connection(("localhost", number), timeout=5).close()

    wait_until(run[0], lambda: listening(run))
    disturb([port])
    run.append(peers.start(f"localhost:{port}", 2, 1))
    assert all(peers.connected(process) for process in run)
    ports = {number for _, number in listening(run)}
    assert len(ports) == 3
    disturb(ports)
    time.sleep(1)
    assert [process.poll() for process in run] == [None, None]
    for process in run:
        process.send_signal(signal.SIGUSR1)
    assert [status for status, _, _ in ended(run)] == [0, 0]
    for connection in foreign:
        connection.close()


# Without other processes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--num_processes", "2"], "must be given together"),
        (["--coordinator", "a:1", "--num_processes", "0", "--process_id", "0"], "at least 1"),
        (["--coordinator", "a:1", "--num_processes", "2", "--process_id", "2"], "0 to 1, not 2"),
        (["--coordinator", "a", "--num_processes", "2", "--process_id", "1"], "HOST:PORT"),
        (["--coordinator", "a:x", "--num_processes", "2", "--process_id", "1"], "HOST:PORT"),
    ],
)
def test_invalid_flags_are_usage_errors(given, message):
    parser = Parser("train.main")
    distributed.add_flags(parser)
    with pytest.raises(UsageError, match=message):
        distributed.connect(parser.parse_args(given))


SRUN = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    ("env", "several"),
    [
        ({}, False),
        (SRUN, True),
        (SRUN | {"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, False),  # the batch script around srun
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://x:1", "OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://x:1", "OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"}, True),
        ({"KUBERNETES_SERVICE_HOST": "x"}, False),  # any other pod
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_are_detected_by_their_environment_variables(env, several):
    assert distributed.is_launched_with_others(env) == several


@pytest.mark.parametrize(
    ("tasks", "visible", "devices"),
    [("1(x2)", "0,1,2,3", [0, 1, 2, 3]), ("4(x2)", "0,1,2,3", None), ("1", "", None)],
)
def test_the_only_task_of_a_node_uses_all_its_gpus(tasks, visible, devices):
    env = {"SLURM_STEP_TASKS_PER_NODE": tasks, "CUDA_VISIBLE_DEVICES": visible}
    assert distributed._local_device_ids(env) == devices


def test_process_shards_cover_the_batch_in_order():
    places = [place for process in range(3) for place in ProcessShard(process, 3).positions(48)]
    assert places == list(range(48))


@pytest.mark.parametrize("name", ["a..b", "x" * 70, "\0"])
def test_a_name_that_no_host_can_have_is_no_loopback(name):
    assert not is_loopback(name)


def test_a_loopback_name_that_this_machine_lacks_is_an_error_in_one_line(monkeypatch):
    """Such as ip6-localhost, without IPv6."""

    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(RunError, match=r"port 5 of ip6-localhost cannot be opened .Name or"):
        distributed._check_port("ip6-localhost:5")
