"""The rows of metrics.jsonl."""

import json
import time

import pytest

from train.runtime.errors import RunError
from train.workdir import metrics_log
from train.workdir.metrics_log import MetricsLog, read_rows, to_json


def test_rows_of_steps_that_are_repeated_are_removed(tmp_path):
    with MetricsLog(str(tmp_path), start=0) as log:
        for step in (1, 2, 3):
            log.write({"step": step, "train/loss": step / 2})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'\xff\xfe\n[1, 2]\n{"a": 1}\n')  # a damaged disk
        file.write(b'{"step": 4, "tra')  # killed while writing
    with MetricsLog(str(tmp_path), start=2) as log:
        log.write({"step": 3, "train/loss": float("nan")})
    rows = read_rows(str(tmp_path))
    assert all(abs(row.pop("time") - time.time()) < 60 for row in rows)
    assert rows == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": 1.0},
        {"step": 3, "train/loss": None},
    ]
    with MetricsLog(str(tmp_path), start=0):
        pass
    assert read_rows(str(tmp_path)) == []


@pytest.mark.parametrize("start", [0, 2])
def test_folder_at_the_path_of_the_file_is_an_error(tmp_path, start):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"cannot (read|write) .*metrics\.jsonl: Is a directory$"):
        MetricsLog(str(tmp_path), start)


def test_rows_with_nonfinite_numbers_are_json():
    row = {"step": 3, "loss": float("inf"), "top1": 0.5}
    assert json.loads(to_json(row)) == {"step": 3, "loss": None, "top1": 0.5}


def test_long_lines_are_damaged_wherever_they_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "_MAX_LINE", 16)
    rows = b'{"step": 1}\n' + b" " * 32 + b'{"step": 2}\n' + b'{"step": 3}\n' + b" " * 40
    (tmp_path / "metrics.jsonl").write_bytes(rows)
    warnings = []
    assert [row["step"] for row in read_rows(str(tmp_path), warnings.append)] == [1, 3]
    assert warnings == [f"{tmp_path}/metrics.jsonl: skipped 1 damaged line"]


def test_number_of_rows_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "_MAX_ROWS", 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' * 3)
    assert len(read_rows(str(tmp_path))) == 3
    path.write_text('{"step": 1}\n' * 4)
    with pytest.raises(RunError, match=r"cannot read .*metrics\.jsonl: More than 3 lines"):
        read_rows(str(tmp_path))
