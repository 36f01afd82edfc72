"""Tests of the directory of the compilation cache, and of training from it."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.train.test_main import SHORT, final_state
from train.runtime import compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The default cache folder in a user cache of its own; restores JAX's options."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name in OPTIONS:
        monkeypatch.setenv(name.upper(), "")  # so that it is restored
        monkeypatch.delenv(name.upper())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "flax_resnet" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def train(commands, tmp_path, monkeypatch):
    """Train a small network in a process; return its last line, its state and its stderr."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    arguments = (*SHORT, "--config.model.stage_sizes=1", "--config.num_steps=3")
    arguments += ("--config.eval.every_epochs=0",)

    def run(name):
        process = commands.run("train.main", *commands.digits(tmp_path / name, *arguments))
        assert process.returncode == 0, process.stderr
        return process.stdout.splitlines()[-1], final_state(tmp_path / name), process.stderr

    return run


def entries(folder, program=""):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(f"{program}*-cache")}


def test_training_from_the_cache_is_bit_identical_and_survives_corrupt_entries(home, train):
    line, cold, stderr = train("cold")
    assert "compilation cache" not in stderr and "cannot" not in stderr
    written = entries(home)
    assert len(entries(home, "jit__fun")) == 2  # training and evaluation
    [corrupt] = entries(home, "jit_batch")
    os.truncate(corrupt, corrupt.stat().st_size // 2)
    written[corrupt] = corrupt.stat().st_mtime_ns
    warm_line, warm, stderr = train("warm")
    assert "Error reading persistent compilation cache entry for 'jit_batch'" in stderr
    assert warm_line == line and warm.keys() == cold.keys()
    for name, leaf in cold.items():
        np.testing.assert_array_equal(warm[name], leaf, name)
    assert entries(home) == written  # everything else was loaded


def test_auto_is_a_limited_folder_for_this_cpu_that_is_not_created_early(home, monkeypatch):
    compilation_cache.configure()
    folder = jax.config.jax_compilation_cache_dir
    assert os.path.dirname(folder) == str(home) and not home.exists()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == folder  # for child processes
    assert jax.config.jax_compilation_cache_max_size == compilation_cache.MAX_BYTES
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert compilation_cache._cpu_name() != os.path.basename(folder)


def test_jax_environment_variables_take_precedence(home, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    compilation_cache.configure()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "mine")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    compilation_cache.configure()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ and not home.exists()


def test_a_chosen_folder_is_used_without_limit_and_off_disables_the_cache(home, tmp_path):
    compilation_cache.configure()  # as every command does first
    compilation_cache.configure(str(tmp_path / "here"))
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "here"))
    assert jax.config.jax_compilation_cache_max_size == -1
    compilation_cache.disable_default()  # not of a chosen folder
    assert jax.config.jax_enable_compilation_cache
    compilation_cache.configure("off")
    assert not jax.config.jax_enable_compilation_cache and not home.exists()


def test_a_size_limit_of_the_user_is_kept(home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "1000")
    compilation_cache.configure()
    assert os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] == "1000"


def test_multiprocess_gpu_runs_do_not_use_the_default_folder(home):
    compilation_cache.configure()
    compilation_cache.disable_default()
    assert not jax.config.jax_enable_compilation_cache


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(home, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder would be")
    compilation_cache.configure()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert stderr.startswith("warning: cannot write compiled programs:")


def test_a_cache_that_jax_can_neither_read_nor_write_does_not_end_a_run(home, train):
    lock = home / compilation_cache._cpu_name() / ".lockfile"
    lock.mkdir(parents=True)  # where JAX opens a file
    _, _, stderr = train("run")
    for action in ("reading", "writing"):
        assert f"Error {action} persistent compilation cache entry" in stderr
    assert not entries(home)


def test_entries_of_killed_processes_are_removed(home, monkeypatch):
    monkeypatch.setattr("train.runtime.compilation_cache._WRITE_SECONDS", 0)
    compilation_cache.configure()
    folder = Path(jax.config.jax_compilation_cache_dir)
    folder.mkdir(parents=True)
    for name in ("complete-cache", "complete-atime", "incomplete-cache"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (0, 0))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")  # as in the next process
    compilation_cache.configure()
    assert sorted(path.name for path in folder.iterdir()) == ["complete-atime", "complete-cache"]
