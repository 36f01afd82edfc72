"""Compiled programs are kept where they should be, and change nothing but the time."""

import os
import warnings

import jax
import numpy as np
import pytest

from tests.train.test_main import SHORT, final_state
from train.runtime import compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An own cache directory, and JAX's options as they were afterwards."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name in OPTIONS:
        monkeypatch.setenv(name.upper(), "")  # so that it is put back
        monkeypatch.delenv(name.upper())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(compilation_cache, "_own", None)
    with warnings.catch_warnings():
        yield tmp_path / "cache" / "flax_resnet" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)


def entries(folder, program=""):
    return {path.name: path for path in folder.rglob(f"{program}*-cache")}


def test_a_start_from_the_cache_learns_the_same_bits_and_mends_what_is_damaged(
    home, commands, tmp_path, monkeypatch
):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    arguments = (*SHORT, "--config.model.stage_sizes=1", "--config.num_steps=3")
    arguments += ("--config.eval.every_epochs=0",)

    def train(name):
        process = commands.run("train.main", *commands.digits(tmp_path / name, *arguments))
        assert process.returncode == 0 and process.stderr == ""
        return process.stdout.splitlines()[-1], final_state(tmp_path / name)

    line, cold = train("cold")
    step, (damaged,) = entries(home, "jit__fun"), entries(home, "jit_batch").values()
    written = {name: path.stat().st_mtime_ns for name, path in step.items()}
    whole = damaged.stat().st_size
    os.truncate(damaged, whole // 2)
    everything = set(entries(home))
    warm_line, warm = train("warm")
    assert warm_line == line and warm.keys() == cold.keys()
    for name, leaf in cold.items():
        np.testing.assert_array_equal(warm[name], leaf, name)
    # Training and evaluation were loaded, and only the damaged program was compiled again.
    assert set(entries(home)) == everything and len(written) == 2
    assert {name: path.stat().st_mtime_ns for name, path in step.items()} == written
    assert damaged.stat().st_size > whole // 2


def test_jax_is_told_of_a_private_folder_for_this_processor(home, monkeypatch):
    compilation_cache.keep()
    folder = jax.config.jax_compilation_cache_dir
    assert os.path.dirname(folder) == str(home) and os.stat(folder).st_mode & 0o777 == 0o700
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == folder  # for what this process starts
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert compilation_cache._processor() != os.path.basename(folder)


def test_what_jax_was_told_already_stays(home, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    compilation_cache.keep()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "mine")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    compilation_cache.keep()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ and not home.exists()


def test_a_folder_is_taken_and_off_is_off(home, tmp_path):
    compilation_cache.keep(str(tmp_path / "here"))
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "here"))
    compilation_cache.not_of_several()  # which was asked for, and so stays
    assert jax.config.jax_enable_compilation_cache
    compilation_cache.keep("off")
    assert not jax.config.jax_enable_compilation_cache and not home.exists()


def test_several_processes_with_gpus_leave_the_users_folder_alone(home):
    compilation_cache.keep()
    compilation_cache.not_of_several()
    assert not jax.config.jax_enable_compilation_cache


def test_a_folder_that_cannot_be_written_is_done_without_in_a_line(home, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder would be")
    compilation_cache.keep()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "warning: compiled programs cannot be kept" in said


def test_a_disk_that_fills_up_is_told_once(home, capsys):
    compilation_cache.keep()
    for program in ("f", "g"):
        entry = f"Error writing persistent compilation cache entry for '{program}'"
        warnings.warn(f"{entry}: OSError: full", stacklevel=1)
    assert capsys.readouterr().err == "warning: compiled programs cannot be kept: OSError: full\n"
    with pytest.warns(UserWarning, match="of another kind"):
        warnings.warn("of another kind", stacklevel=1)


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "d", (2e9, 1e9))  # read since
    compilation_cache.prune(str(tmp_path), 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"]
