"""config.json, sessions.jsonl and the lock of a workdir."""

import contextlib
import os
import resource

import pytest

from train.config.loading import default_config
from train.runtime.errors import RunError, UsageError
from train.workdir import run_files


def test_truncated_line_does_not_affect_other_sessions(tmp_path):
    run_files.add_session(str(tmp_path), step=0, num_steps=9, batch_norm_images=8)
    with open(tmp_path / "sessions.jsonl", "ab") as file:
        file.write(b'"no session"\n{"step": 10, "\xff')
    for step in (20, 30):
        run_files.add_session(str(tmp_path), step, num_steps=90, batch_norm_images=8)
    assert [session["step"] for session in run_files.read_sessions(str(tmp_path))] == [0, 20, 30]


def test_another_configuration_is_accepted_only_without_checkpoints(tmp_path):
    path = str(tmp_path / "run")
    assert run_files.check(path, default_config()) is False
    assert not os.path.exists(path)
    run_files.create(path, default_config())
    other = default_config()
    other.seed = 3
    assert run_files.check(path, other) is False
    os.makedirs(tmp_path / "run" / "checkpoints" / "7")
    assert run_files.check(path, default_config()) is True
    with pytest.raises(UsageError, match="seed was 0, is now 3"):
        run_files.check(path, other)
    os.remove(tmp_path / "run" / "config.json")
    with pytest.raises(
        RunError, match=r"has checkpoints, but no config\.json: restore the file, or "
    ):
        run_files.check(path, other)
    os.mkdir(tmp_path / "run" / "config.json")
    with pytest.raises(
        RunError, match=r"cannot read \S*config.json: Is a directory; restore the file"
    ):
        run_files.check(path, other)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("config.json", lambda path: run_files.create(path, default_config())),
        ("trainer.lock", lambda path: run_files.exclusive_lock(path, print).__enter__()),
    ],
)
def test_error_names_the_file_that_cannot_be_written(tmp_path, name, write):
    with limited_files(0):
        with pytest.raises(RunError, match=rf"cannot write {tmp_path}/{name}: File too large"):
            write(str(tmp_path))


@contextlib.contextmanager
def limited_files(size):
    """Limit the size of files, as ``ulimit -f`` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"optimzer.name": "sgd"}'])
def test_corrupt_config_is_an_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"cannot read .*config\.json"):
        run_files.read_config(str(tmp_path))
