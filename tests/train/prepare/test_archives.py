"""Tests of the checks of archives that must be downloaded by hand."""

import os

import pytest

from tests.train.prepare.archives import TRAIN, VALIDATION, tar
from train.prepare.archives import check_archives
from train.runtime.errors import RunError


def sparse(path, size):
    """Write a sparse tar archive of ``size`` bytes."""
    path.write_bytes(tar({"n01440764.tar": b""}))
    os.truncate(path, size)


def test_archive_errors_name_the_likely_cause(tmp_path):
    def problem(any_size=False):
        with pytest.raises(RunError) as caught:
            check_archives("imagenet2012", str(tmp_path / "manual"), any_size)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no folder" in problem() and "ILSVRC2012_img_val.tar" in problem()
    manual = tmp_path / "manual"
    manual.mkdir()
    assert "ILSVRC2012_img_train.tar is missing; download it from https://image-net" in problem()
    (manual / "n01440764").mkdir()
    assert "extracted files" in problem()
    (manual / f"{TRAIN}.part").touch()
    assert f"but {TRAIN}.part exists: complete the download" in problem()
    sparse(tmp_path / TRAIN, 147_897_477_120)
    assert f"but exists in {tmp_path}: pass that" in problem()
    (tmp_path / TRAIN).rename(manual / TRAIN)
    assert VALIDATION in problem()
    sparse(manual / VALIDATION, 10_240)
    assert "has 10,240 bytes instead of 6,744,924,160" in problem()
    assert "incomplete" in problem()
    assert check_archives("imagenet2012", str(manual), any_size=True) == 147_897_477_120 + 10_240
    os.truncate(manual / VALIDATION, 6_744_924_160)
    assert check_archives("imagenet2012", str(manual), any_size=False) == 154_642_401_280
    (manual / VALIDATION).write_bytes(b"<html>log in first</html>")
    assert "is not a tar archive" in problem(any_size=True)
