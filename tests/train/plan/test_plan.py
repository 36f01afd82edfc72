"""What train.plan says of a run before it starts."""

import json
import os

import pytest

from train.plan import estimate, memory
from train.reporting.plots import Plots
from train.runtime.errors import RunError


@pytest.fixture
def small(digits_config):
    digits_config.model.stage_sizes = (1,)
    digits_config.num_steps = 12
    return digits_config


def test_a_plan_tells_what_the_run_needs_and_leaves_its_workdir_alone(small, tmp_path, capsys):
    workdir, output = tmp_path / "run", tmp_path / "plan"
    found = estimate.plan(small, str(workdir), str(output))
    assert found["problems"] == []
    assert found["steps"] == 12 and found["steps_per_epoch"] == 22 and found["parameters"] == 5306
    assert found["multiply_adds"] > 10 * found["parameters"]
    # Parameters and momentum are in it.
    assert found["step_bytes"] > 2 * 4 * found["parameters"]
    assert 1.5e8 < found["needed_bytes"] <= found["limit_bytes"]
    assert found["largest_batch"] > 64
    assert found["total_seconds"] > found["compile_seconds"] + 11 * found["step_seconds"]
    assert found["epoch_seconds"] > 21 * found["step_seconds"] > 0
    assert not workdir.exists()
    assert sorted(os.listdir(output)) == ["samples.png", "schedule.svg"]
    told = capsys.readouterr().out
    for words in ("an epoch", "up to", "at the peak", "▁", "1,437 training", "1 evaluation and"):
        assert words in told
    assert f"the data, in {small.dataset.data_dir}" in told


def test_a_run_that_does_not_fit_is_told_and_not_begun(small, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "host_limit", lambda: 10**8)
    found = estimate.plan(small, str(tmp_path / "run"), str(tmp_path / "plan"))
    assert len(found["problems"]) == 1 and "there are 100 MB" in found["problems"][0]
    assert found["largest_batch"] == 0 and "step_seconds" not in found


def test_the_command_tells_all_that_would_fail(commands, tmp_path):
    process = commands.run(
        "train.plan",
        *("--config", "configs/resnet50_imagenet.py", "--workdir", tmp_path / "run"),
        *("--config.batch_size=63", f"--config.dataset.data_dir={tmp_path}"),
        devices=4,
    )
    assert process.returncode == 1
    problems = json.loads(process.stdout.splitlines()[-1])["problems"]
    assert len(problems) == 2
    assert "the nearest that does is 64" in problems[0]
    assert "python -m train.prepare --dataset=imagenet2012" in problems[1]
    assert process.stderr.count("error: would fail: ") == 2
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_an_error(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        estimate.plan(small, str(tmp_path / "run"), str(tmp_path / "file" / "plan"))


def test_a_full_disk_is_foreseen(tmp_path):
    problems = []
    estimate.check_disk(str(tmp_path / "run"), 10**18, 3, problems)
    assert len(problems) == 1 and "need 5000000 TB" in problems[0].replace(",", "")
    estimate.check_disk(str(tmp_path / "run"), 1, 3, problems)
    assert len(problems) == 1


def test_pictures_that_cannot_be_drawn_are_warned_of(tmp_path):
    warned = []
    Plots(str(tmp_path), warned.append).draw("a.png", lambda path: open(path + "/no/such"))
    assert len(warned) == 1 and "cannot draw a.png" in warned[0]
