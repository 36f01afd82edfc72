"""Tests of building a data set in a temporary directory: space, leftovers, concurrency."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.prepare import staging
from train.runtime.errors import RunError


def test_missing_disk_space_is_reported_before_writing(tmp_path):
    leftover = tmp_path / "incomplete.cifar10.abc"
    leftover.mkdir()
    with pytest.raises(RunError, match=r"needs about 1000 TB and its disk has .* free"):
        with staging.staging_dir(str(tmp_path), "cifar10", needed=10**15):
            raise AssertionError
    assert not any(tmp_path.iterdir())  # leftovers are deleted first


def test_leftovers_of_a_killed_preparation_are_removed(tmp_path, capsys):
    code = (
        "import os, signal, sys; from train.prepare.staging import staging_dir\n"
        "with staging_dir(sys.argv[1], 'cifar10') as own:\n"
        "    open(os.path.join(own, 'shard'), 'wb').write(bytes(5000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3])
    (leftover,) = tmp_path.glob("incomplete.cifar10.*")
    with staging.staging_dir(str(tmp_path), "cifar10") as own:
        assert not leftover.exists() and os.path.isdir(own)
        # Of two at once the second ends with an error; the first is not affected.
        with pytest.raises(RunError, match=r"process \d+ on .* is preparing cifar10"):
            with staging.staging_dir(str(tmp_path), "cifar10"):
                pass
        with staging.staging_dir(str(tmp_path), "mnist") as other:
            assert other != own
        assert os.path.isdir(own)
    output = capsys.readouterr().out
    assert f"removed 5.0 kB of an interrupted preparation in {leftover}" in output
    assert not any(tmp_path.iterdir())


def test_unwritable_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(RunError, match="cannot write to"):
            with staging.staging_dir(str(folder), "cifar10"):
                pass


def test_publish_keeps_the_first_of_two(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dataset_info.json").write_text(folder)
    target = str(tmp_path / "target" / "1.0.0")
    assert staging.publish(str(tmp_path / "first"), target)
    assert not staging.publish(str(tmp_path / "second"), target)
    assert Path(target, "dataset_info.json").read_text() == "first"
