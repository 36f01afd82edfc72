"""Processes that look for one another, and strangers that come to their port."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT, free_port
from train.runtime import rendezvous
from train.runtime.errors import RunError


def met(*told, seconds=30, address=None):
    """What becomes of processes that come one after another: 0 last, to be waited for."""
    address = address or f"localhost:{free_port()}"

    def meet(own, count):
        try:
            return rendezvous.meet(address, count, own, seconds)
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        return [result.result() for result in [pool.submit(meet, *one) for one in told]]


def test_processes_meet_whoever_comes_first_and_leave_the_port(monkeypatch):
    monkeypatch.setattr(rendezvous, "_ROOM_SECONDS", 0.1)  # for a coordinator that never comes
    address = f"localhost:{free_port()}"
    for _ in range(2):
        assert met((2, 3), (1, 3), (0, 3), address=address) == [None] * 3
    assert met((0, 1)) == [None]


def test_processes_that_do_not_belong_together_are_told(monkeypatch):
    monkeypatch.setattr(rendezvous, "_ROOM_SECONDS", 0.1)
    *others, first, second, zero = met((1, 2), (3, 3 + 1), (1, 3), (1, 3), (0, 3), seconds=2)
    assert "it is one of 3 and this of 2 processes" in others[0]
    assert "it is one of 3 and this of 4 processes" in others[1]
    assert sorted(["already" in first, "already" in second]) == [False, True]
    assert any("there is a process 1 already" in text for text in (first, second))
    assert "process 2 did not come to localhost:" in zero and zero.endswith("within 2 s")
    assert any(text.endswith(zero) for text in (first, second))
    [alone] = met((1, 2), seconds=0.3)
    assert "process 0 did not come" in alone and "refused" in alone


@pytest.mark.parametrize("own", [0, 1])
def test_a_port_that_another_program_has(own, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as other:  # which says nothing
        port = other.getsockname()[1]
        [told] = met((own, 2), address=f"127.0.0.1:{port}")
    assert told.startswith(f"port {port} of 127.0.0.1 is in use")


def test_strangers_and_those_that_went_again_keep_nobody_waiting(monkeypatch):
    monkeypatch.setattr(rendezvous, "_ROOM_SECONDS", 0.1)
    address = f"localhost:{free_port()}"
    with ThreadPoolExecutor() as pool:
        zero = pool.submit(met, (0, 3), address=address)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"process": 1, "processes": 3}\n'):
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(ConnectionRefusedError):
                    stranger = rendezvous._connected(address)
                    break
            with stranger:
                stranger.sendall(words)
                if words.startswith(b"{"):
                    assert b"joined" in stranger.recv(100)
        assert met((1, 3), (2, 3), address=address, seconds=10) == [None, None]
        assert zero.result() == [None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits(number):
    script = (
        "import sys\n"
        "from train import rendezvous, signals\n"
        "rendezvous.QUIET_SECONDS = 0\n"
        "with signals.ending_at_once('while waiting'):\n"
        "    rendezvous.meet(sys.argv[1], 3, 0, 60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, f"localhost:{free_port()}"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr.readline().startswith("waiting for processes 1, 2 at localhost:")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (-number, f"error: {number.name} while waiting\n")


def test_a_stranger_that_says_what_is_no_greeting_is_heard_no_further():
    for said in (b"[" * 150 + b"\n", b"x" * 201, b"1\n"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(5)
            theirs.sendall(said)
            with pytest.raises(rendezvous._Stranger):
                rendezvous._hear(ours, most=200)
    for number in (True, 1.0, "1"):
        ours, theirs = socket.socketpair()
        with theirs:
            rendezvous._tell(theirs, process=number, processes=2)
            assert rendezvous._receive(ours, 2, set()) is None


def test_a_line_has_one_time_limit_and_not_one_a_byte():
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:

        def dribble():
            with contextlib.suppress(OSError):
                for _ in range(40):
                    theirs.sendall(b"x")
                    time.sleep(0.1)

        ours.settimeout(0.3)
        began = time.monotonic()
        pool.submit(dribble)
        with pytest.raises((rendezvous._Stranger, TimeoutError)):
            rendezvous._hear(ours)
        assert time.monotonic() - began < 2
        ours.close()
