"""The installed command ``flax-resnet``."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from train.runtime.entry_point import COMMANDS


def run(*arguments, cwd=ROOT):
    code = "from train.runtime.entry_point import main; main()"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)


def test_help_lists_the_commands():
    process = run("--help")
    assert process.returncode == 0, process.stderr
    for name, (_, meaning) in COMMANDS.items():
        assert f"  {name}" in process.stdout and meaning in process.stdout


def test_help_and_usage_errors_do_not_import_jax():
    """Importing JAX takes a second."""
    code = (
        "import sys\n"
        "from train.runtime.entry_point import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert not {'jax', 'flax', 'optax'} & sys.modules.keys()\n"
    )
    for arguments in (
        *(["--help"], ["trian"], ["train", "--config", "no_such_recipe"]),
        *([name, "--help"] for name in COMMANDS),
        *(["summary"], ["weights", "convert", "a", "b", "--layout", "x"]),
        ["predict", "--workdir", "no_such_run", "a.png"],
    ):
        command = [sys.executable, "-c", code, *arguments]
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert "AssertionError" not in process.stderr, arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_help_under_their_own_name(name):
    assert callable(importlib.import_module(COMMANDS[name][0]).main)
    process = run(name, "--help")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"usage: flax-resnet {name} ")


def test_unknown_command_names_the_closest():
    process = run("trian")
    assert process.returncode == 2
    assert process.stderr == "error: flax-resnet has no command 'trian'; did you mean 'train'?\n"


def test_unknown_recipe_names_the_closest():
    process = run("train", "--config", "resnet20_digit")
    assert process.returncode == 2
    assert "there is no recipe 'resnet20_digit'" in process.stderr
    assert "did you mean resnet20_digits" in process.stderr


def test_key_without_config_is_a_one_line_error():
    process = run("train", "--config", "resnet20_digits", "--lr=0.1")
    assert process.returncode == 2
    assert "--lr=0.1; configuration keys are set by --config.KEY=VALUE; see" in process.stderr


def test_modules_in_the_current_folder_are_not_imported(tmp_path):
    script = Path(sys.executable).parent / "flax-resnet"
    if not script.exists():
        pytest.skip("the command is not installed")
    for name in ("train.py", "flax_resnet.py", "configs.py"):
        (tmp_path / name).write_text("raise SystemExit(99)")
    command = [script, "summary", "resnet18"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "11,689,512" in process.stdout
