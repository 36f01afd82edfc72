"""Tests of train.plan: estimates of memory and time, and problems before a run starts."""

import json
import os

import pytest

from train.plan import estimate
from train.reporting.plots import Plots
from train.runtime import host_memory, limits
from train.runtime.errors import RunError


@pytest.fixture
def small(digits_config):
    digits_config.model.stage_sizes = (1,)
    digits_config.num_steps = 12
    return digits_config


def test_plan_estimates_memory_and_time_and_does_not_change_the_workdir(small, tmp_path, capsys):
    workdir, output = tmp_path / "run", tmp_path / "plan"
    result = estimate.plan(small, str(workdir), str(output))
    assert result["problems"] == []
    assert result["steps"] == 12 and result["steps_per_epoch"] == 22
    assert result["parameters"] == 5306
    assert result["multiply_adds"] > 10 * result["parameters"]
    # Includes parameters and momentum.
    assert result["step_bytes"] > 2 * 4 * result["parameters"]
    assert 1.5e8 < result["needed_bytes"] <= result["limit_bytes"]
    assert result["largest_batch"] > 64
    assert result["total_seconds"] > result["compile_seconds"] + 11 * result["step_seconds"]
    assert result["epoch_seconds"] > 21 * result["step_seconds"] > 0
    assert not workdir.exists()
    assert sorted(os.listdir(output)) == ["samples.png", "schedule.svg"]
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    for text in ("per epoch", "up to", "at the peak", "▁", "1,437 images of 'train'"):
        assert text in words
    assert "with 1 evaluation and" in words
    assert f"data in: {small.dataset.data_dir}" in words
    stages = [line.partition("… done in ")[0] for line in printed.splitlines() if "… done" in line]
    assert stages == [
        *("loading data", "compiling the training step", "drawing samples", "timing steps"),
        *("compiling and timing an evaluation", "timing a checkpoint"),
        "compiling another batch size",
    ]
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_run_that_exceeds_the_memory_is_a_problem_and_is_not_started(small, tmp_path, monkeypatch):
    monkeypatch.setattr(host_memory, "host_limit", lambda: 10**8)
    monkeypatch.setattr(limits, "memory", lambda *_: None)  # which counts only the images
    result = estimate.plan(small, str(tmp_path / "run"), str(tmp_path / "plan"))
    assert len(result["problems"]) == 1 and "100 MB are available" in result["problems"][0]
    assert result["largest_batch"] == 0 and "step_seconds" not in result


def test_limits_of_the_machine_are_problems_and_nothing_is_compiled(small, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "memory", lambda *_: "no memory")
    monkeypatch.setattr(limits, "disk_space", lambda *_: "no space")
    monkeypatch.setattr(estimate, "DryRun", None)
    result = estimate.plan(small, str(tmp_path / "run"), str(tmp_path / "plan"))
    assert result["problems"] == ["no memory", "no space"]


def test_command_reports_all_problems(commands, tmp_path):
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


def test_unwritable_output_is_an_error(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        estimate.plan(small, str(tmp_path / "run"), str(tmp_path / "file" / "plan"))


def test_failed_image_is_a_warning(tmp_path):
    warnings = []
    Plots(str(tmp_path), warnings.append).draw("a.png", lambda path: open(path + "/no/such"))
    assert len(warnings) == 1 and "cannot draw a.png" in warnings[0]
