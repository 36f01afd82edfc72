"""How commands end: by signals, with closed streams, and without permission to read."""

import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.unprivileged import unprivileged
from train.runtime.cli import run_command
from train.runtime.signals import StopRequest, interruptible


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_requests_a_stop_and_a_second_one_ends_the_process(number):
    code = (
        "import os, time; from train.runtime.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        f"    os.kill(os.getpid(), {number.value}); time.sleep(0.05)\n"
        "    print(bool(stop), stop.signal.name, flush=True)\n"
        f"    os.kill(os.getpid(), {number.value}); time.sleep(5)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.split() == ["True", number.name]
    assert process.returncode == -number


def test_signal_handlers_are_restored():
    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    with StopRequest() as stop:
        assert not stop
    assert [signal.getsignal(number) for number in StopRequest.SIGNALS] == before


@pytest.fixture
def interrupt():
    """Send SIGINT to this process, with Python's default handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_in_a_callback_is_repeated(interrupt):
    """As in JAX's callback of each garbage collection, where Python drops exceptions."""
    phases = []

    def callback(phase, _):
        if not phases:
            phases.append(phase)
            interrupt()

    gc.callbacks.append(callback)
    hook = sys.unraisablehook
    try:
        with pytest.raises(KeyboardInterrupt), interruptible(leave=lambda: None):
            gc.collect()
            time.sleep(5)
    finally:
        gc.callbacks.remove(callback)
    assert phases == ["start"]
    assert sys.unraisablehook is hook
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_ends_a_call_that_does_not_return_to_python(interrupt):
    left = threading.Event()
    with pytest.raises(KeyboardInterrupt), interruptible(leave=left.set, seconds=0.05):
        threading.Timer(0.1, interrupt).start()
        while not left.is_set():  # without the GIL, as XLA compiles
            hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)
    assert left.is_set()


@pytest.mark.parametrize("ends", [True, False])
def test_an_interrupted_command_exits_with_130(ends):
    """Also one that drops the exception and would never end."""
    code = (
        "import os, signal, time\n"
        "from train.runtime import cli, signals\n"
        "signals.interruptible.__wrapped__.__defaults__ = (0.2,)\n"
        "def main():\n"
        "    while True:\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            time.sleep(5)\n"
        "        except KeyboardInterrupt:\n"
        f"            if {ends}: raise\n"
        "            time.sleep(5)\n"
        "            os._exit(3)\n"
        "cli.run_command(main)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (130, "error: interrupted\n")


def test_a_missing_permission_is_reported_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    import absl.logging  # noqa: F401 (that user may not read the folder of the libraries)

    (tmp_path / "closed").mkdir(mode=0)
    with unprivileged(tmp_path), pytest.raises(SystemExit) as ended:
        run_command(lambda: os.listdir("closed"))
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: no permission for 'closed'; change")


def test_an_interrupt_during_an_import_ends_the_process_at_once(interrupt, tmp_path, monkeypatch):
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    left = threading.Event()
    with pytest.raises(KeyboardInterrupt), interruptible(leave=left.set):
        import interrupted  # noqa: F401
    assert left.is_set()
    left.clear()
    with pytest.raises(KeyboardInterrupt), interruptible(leave=left.set):
        interrupt()
    assert not left.is_set()


def test_commands_run_with_closed_standard_streams(commands):
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        command = f"exec {sys.executable} -m train.compare --help {closed}"
        process = subprocess.run(command, shell=True, cwd=commands.root, capture_output=True)
        assert process.returncode == 0, process.stderr


def test_ignored_signals_do_not_stop_a_run(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
