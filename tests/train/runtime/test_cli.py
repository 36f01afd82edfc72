"""Flags that all commands share."""

import os
import subprocess
import sys

import pytest

from tests.conftest import as_a_process
from train.runtime.cli import Parser, program, run_command


@pytest.mark.parametrize("arguments", [["--workdir=~/runs"], ["--workdir", "~/runs"]])
def test_home_is_expanded_in_flags_as_in_configuration_keys(monkeypatch, arguments):
    monkeypatch.setenv("HOME", "/home/ada")
    parser = Parser("train.evaluate")
    parser.add_argument("--workdir")
    assert parser.parse_args(arguments).workdir == "/home/ada/runs"


def test_home_is_expanded_in_files(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    parser = Parser("train.predict")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_intermixed_args(["~/a.png", "--json", "b~.png"])
    assert flags.images == ["/home/ada/a.png", "b~.png"]


def test_devices_that_jax_cannot_use_are_an_error_of_one_line():
    command = "from train.runtime.cli import run_command; import jax; run_command(jax.devices)"
    env = {**os.environ, "JAX_PLATFORMS": "abacus"}
    done = subprocess.run([sys.executable, "-c", command], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: JAX cannot use its devices: ") and "abacus" in line
    assert "JAX_PLATFORMS" in line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "error: out of memory: free some"),
        (RuntimeError("can't start new thread"), "error: can't start new thread: raise the limit"),
        (SystemExit(0), "error: test_cli.py, line "),  # own code ends in no silence
    ],
)
def test_exhausted_limits_and_exits_are_errors_of_one_line(capfd, error, message):
    def fail():
        raise error

    with as_a_process(), pytest.raises(SystemExit) as ended:
        run_command(fail)
    [line] = capfd.readouterr().err.splitlines()
    assert ended.value.code == 1 and line.startswith(message)


@pytest.mark.parametrize(
    ("started", "module", "expected"),
    [
        ("train/main.py", "train.prepare", "python -m train.prepare"),
        ("flax-resnet train", "train.prepare", "flax-resnet prepare"),
        ("flax-resnet evaluate", "train.main", "flax-resnet train"),
    ],
)
def test_commands_are_named_as_the_running_one_was_started(monkeypatch, started, module, expected):
    monkeypatch.setattr(sys, "argv", [started])
    assert program(module) == expected
