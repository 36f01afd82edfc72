"""Building a data set beside its place: room, what was left over, and who comes first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.prepare import staging
from train.runtime.errors import RunError


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    left = tmp_path / "incomplete.cifar10.abc"
    left.mkdir()
    with pytest.raises(RunError, match=r"needs about 1000 TB and its disk has .* free"):
        with staging.staging(str(tmp_path), "cifar10", needed=10**15):
            raise AssertionError
    assert not any(tmp_path.iterdir())  # what was left over makes room first


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (147897477120, "148 GB")],
)
def test_sizes_are_readable(number, text):
    assert staging.size(number) == text


def test_what_a_killed_preparation_left_is_removed(tmp_path, capsys):
    code = (
        "import os, signal, sys; from train.data.staging import staging\n"
        "with staging(sys.argv[1], 'cifar10') as own:\n"
        "    open(os.path.join(own, 'shard'), 'wb').write(bytes(5000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3])
    (left,) = tmp_path.glob("incomplete.cifar10.*")
    with staging.staging(str(tmp_path), "cifar10") as own:
        assert not left.exists() and os.path.isdir(own)
        # Two at once: the second stops, and the first is not disturbed.
        with pytest.raises(RunError, match=r"process \d+ on .* is preparing cifar10"):
            with staging.staging(str(tmp_path), "cifar10"):
                pass
        with staging.staging(str(tmp_path), "mnist") as other:
            assert other != own
        assert os.path.isdir(own)
    assert (
        f"removed 5.0 kB that an interrupted preparation left in {left}" in capsys.readouterr().out
    )
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(RunError, match="cannot write to"):
            with staging.staging(str(folder), "cifar10"):
                pass


def test_the_first_of_two_to_finish_is_kept(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dataset_info.json").write_text(folder)
    place = str(tmp_path / "place" / "1.0.0")
    assert staging.publish(str(tmp_path / "first"), place)
    assert not staging.publish(str(tmp_path / "second"), place)
    assert Path(place, "dataset_info.json").read_text() == "first"
