"""The first screen of the report of runs in any state."""

import html as html_module
import json
import re
from types import SimpleNamespace

import pytest

from tests.train.reporting.made_runs import make_run
from train.config.loading import default_config
from train.reporting.report import run_report
from train.workdir import run_files
from train.workdir.session_ends import recorded_end


@pytest.fixture
def screen(tmp_path, monkeypatch):
    """``screen(rows)``: text of the first screen of a run of 200 steps, and its tiles."""
    config = default_config()
    config.dataset.name, config.model.width = "digits", 16
    run_files.create(str(tmp_path), config)
    run_files.add_session(str(tmp_path), 0, 200, 32)

    def get(*rows, early_end=None, parts=None):
        lines = [json.dumps({"epoch": row["step"] / 10, **row}) for row in rows]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        info = SimpleNamespace(early_end=early_end, images={}, class_names=("x" * 200, "cat"))
        info.preprocessing = SimpleNamespace(image_size=8)
        monkeypatch.setattr(run_files, "find_description", lambda _: info)
        return first_screen(run_report.page(str(tmp_path), parts or {}))

    return get


def first_screen(html):
    """Return the text before the first section, and ``{tile: (value, remark)}``."""
    html = html[html.index("<main>") : html.index("<section")]
    tiles = re.findall(r"<div[^>]*><span>(.*?)</span><b>(.*?)</b>.*?<span>(.*?)</span>", html)
    text = html_module.unescape(re.sub(r"<[^>]*>", " ", html))
    return " ".join(text.split()), {name: rest for name, *rest in tiles}


def test_a_run_without_any_metrics(screen):
    text, tiles = screen({"step": 0})
    assert "Not finished: step 0 of 200 (0 %); not evaluated yet." in text
    assert tiles == {"step": ["0", "of 200"]}
    assert "resnet50 with width 16" in text and "digits: " in text


def test_an_unfinished_run_and_one_that_stopped_early(screen):
    evaluated = {"step": 60, "eval/top1": 0.5, "eval/baseline": 0.25, "eval/loss": 1.2e-6}
    training = {"step": 80, "train/loss": 0.0000012, "images_per_second": 900.0}
    text, tiles = screen(evaluated, training)
    assert "Not finished: step 80 of 200 (40 %); evaluated at step 60." in text
    # The number of images is unknown, and so the interval.
    assert tiles["evaluation top-1"] == ["50.0 %", "baseline 25.0 % (always the largest class)"]
    assert tiles["training loss"] == ["1.2e-6", "at step 80 of 200"]
    assert list(tiles)[-1] == "images per second"
    text, _ = screen(evaluated, training, early_end="stopped early: no lower loss in 3 epochs")
    assert "Stopped early: no lower loss in 3 epochs." in text and "Not finished" not in text


def test_a_loss_that_is_not_finite_and_long_class_names(screen):
    text, tiles = screen({"step": 80, "train/loss": 1.5}, {"step": 100, "train/loss": None})
    assert tiles["training loss"] == ["not finite", "at step 100 of 200"]
    assert re.search(r"2 classes \(x{20,90}…, cat\)", text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made"), ["cat", "dog"], [40, 120], 8.0)


def test_a_finished_run(made):
    parts = run_report.read_parts(made)
    [part] = parts["evaluations"].values()
    text, tiles = first_screen(run_report.page(made, parts))
    assert re.search(r"run \d{4}-\d\d-\d\d \d\d:\d\d \w+ · \d+ s in 2 sessions", text)
    wrong = sum(round((1 - one["recall"]) * one["examples"]) for one in part["classes"])
    assert wrong and f"Right in {160 - wrong} of 160 images" in text
    assert "320 images in train and 160 images in val of 48×48 pixels; 2 classes" in text
    assert "'val': cat: 40 (25.0 %), dog: 120 (75.0 %)" in text
    low, high = part["top1_interval"]
    assert list(tiles) == [
        *("evaluation top-1", "worst class", "calibration error (ECE)"),
        *("best top-1 of 10 evaluations", "training loss", "images per second"),
    ]
    assert tiles["evaluation top-1"] == [
        f"{100 * part['top1']:.1f} %",
        f"95 % confidence interval {100 * low:.1f} % to {100 * high:.1f} %;"
        " baseline 75.0 % (always the largest class)",
    ]
    worst = min(part["classes"], key=lambda one: one["recall"])
    value, remark = tiles["worst class"]
    assert value == f"{100 * worst['recall']:.1f} %" and f"“{worst['name']}”" in remark
    assert tiles["calibration error (ECE)"][0] == (
        f"{100 * part['expected_calibration_error']:.1f} %"
    )


def test_an_evaluation_of_another_step_is_not_taken_for_the_newest(made):
    parts = run_report.read_parts(made)
    [part] = parts["evaluations"].values()
    part["step"] = 50
    text, tiles = first_screen(run_report.page(made, parts))
    assert "worst class" not in tiles and "Right in" not in text
    assert "95 % confidence interval" in tiles["evaluation top-1"][1]  # of the number of images


def test_interruptions_are_in_the_environment(made):
    html = run_report.page(made, {})
    assert "SIGTERM after step 50" in html and html.count('<i class="range') == 3
    with pytest.raises(ValueError), recorded_end(made):
        raise ValueError("<script>")
    assert "<script" not in run_report.page(made, {})
