"""Worker processes: how they end, and what they report."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from train.data import streaming
from train.runtime import limits
from train.runtime.errors import RunError

RUN = """
import os, sys, time
from train.data import streaming

def load(step, positions):
    print(os.getpid(), flush=True)
    return list(positions)

if __name__ == "__main__":
    for batch in streaming.stream(load, range(1000), range(2), threads=1, workers=2):
        time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("imports", [True, False])
def test_workers_end_with_a_run_that_is_killed(tmp_path, imports):
    """Also while they import libraries, before they could be initialized."""
    script = tmp_path / "run.py"
    script.write_text("import train\n" + "import time; time.sleep(9)\n" * imports + RUN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 100

    def children():
        return {
            stat.parent for stat in Path("/proc").glob("[0-9]*/stat") if parent(stat) == run.pid
        }

    if imports:
        while len(workers := children()) < 3 and time.monotonic() < deadline:  # and the tracker
            time.sleep(0.05)
        time.sleep(2)
    else:
        run.stdout.readline()
        workers = children()
    assert len(workers) == 3
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 6
    while (
        left := [w for w in workers if parent(w / "stat") is not None]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def parent(stat):
    """Return the parent of a process; None if it has ended."""
    try:
        state, number, *_ = stat.read_text().rpartition(")")[2].split()
        return int(number) if state != "Z" else None
    except OSError:
        return None


def load(step, positions):
    return np.full((len(positions), 100), step, np.uint8)


def kill(step, positions):
    os.kill(os.getpid(), signal.SIGBUS)


@pytest.mark.parametrize("shared", [True, False])
def test_batches_do_not_depend_on_shared_memory(monkeypatch, capsys, shared):
    if not shared:
        monkeypatch.setattr(limits, "shared_memory", lambda _: "/dev/shm has 0 bytes free")
    batches = list(streaming.stream(load, range(3), range(33), threads=1, workers=1))
    for step, parts in enumerate(batches):
        np.testing.assert_array_equal(np.concatenate(parts), np.full((33, 100), step))
        assert all((type(part) is np.ndarray) != shared for part in parts)
    assert ("/dev/shm has 0 bytes free" in capsys.readouterr().err) != shared


def test_a_killed_worker_is_reported_with_the_reason():
    with pytest.raises(RunError, match="SIGBUS: /dev/shm is full; enlarge it"):
        list(streaming.stream(kill, range(2), range(2), threads=1, workers=1))
