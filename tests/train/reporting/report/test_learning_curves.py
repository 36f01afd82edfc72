"""The learning curves of a run in its report, and how long a long run's report takes."""

import json
import shutil
import time

import pytest

from tests.train.reporting.charts.drawings import parse, with_class
from train.config.loading import default_config, load_config
from train.reporting.report import learning_curves, run_report
from train.workdir.metrics_log import read_rows


def config_with(**keys):
    config = default_config()
    config.update_from_flattened_dict(keys)
    return config


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({}, ""),
        ({"label_smoothing": 0.1}, "with label smoothing"),
        ({"augment.hflip": True, "augment.cutout": 3}, "with augmentation"),
        (
            {"label_smoothing": 0.1, "augment.mixup": 0.2, "augment.rrc_scale": (0.08, 1.0)},
            "with label smoothing, mixup and augmentation",
        ),
        ({"augment.color_jitter": (0.1, 0.0, 0.0, 0.0)}, "with augmentation"),
        ({"model.drop_path": 0.1, "loss": "focal"}, "with stochastic depth and the focal factor"),
        ({"task": "multi_label", "loss": "asymmetric"}, ""),  # the evaluation has it, too
        (
            {"logit_adjustment": 1.0, "loader.sampling": "balanced"},
            "with logit adjustment and balanced sampling",
        ),
    ],
)
def test_conditions_of_the_training_metrics(keys, text):
    assert learning_curves.training_conditions(config_with(**keys)) == text


def test_conditions_of_recipes():
    config = load_config("resnet50_imagenet_a1")
    assert learning_curves.training_conditions(config).startswith("with label smoothing, mixup,")


def test_section_folds_the_speed_and_shows_the_chosen_metric(digits_run):
    rows = read_rows(digits_run)
    for row in rows:
        if "eval/top1" in row:
            row["eval/top3"] = 0.99
    config = config_with(**{"eval.metric": "top3"})
    text = learning_curves.section(rows, config, "digits")
    learned, speed = text.split("<summary>Speed and waiting for input</summary>")
    for title in ("Loss", "Top-3", "Top-1 accuracy", "Learning rate"):
        assert f"<figcaption>{title}</figcaption>" in learned
    assert "Images per second" in speed and "Waiting for input" in speed
    root, texts = parse(learning_curves.svg_text(rows, config, "digits"))
    assert [e.text for e in with_class(root, "heading")] == ["digits"]
    assert texts.count("epoch") == 4
    assert learning_curves.section([], config, "digits") == ""


def test_report_of_a_hundred_thousand_rows_takes_seconds(digits_run, tmp_path):
    """About 1.2 s of processor time; the bound is loose, for slow machines under load."""
    for name in ("config.json", "run.json", "sessions.jsonl"):
        shutil.copy(f"{digits_run}/{name}", tmp_path)
    row = {"train/loss": 1.2345678901, "train/top1": 0.5, "learning_rate": 0.1}
    row |= {"images_per_second": 1234.5, "input_wait_fraction": 0.0123, "time": 1.7e9}
    with open(tmp_path / "metrics.jsonl", "w") as file:
        for n in range(1, 100_001):
            evaluation = {"eval/loss": 1.0, "eval/top1": 0.5} if n % 500 == 0 else {}
            file.write(json.dumps({"step": n, "epoch": n / 500, **row, **evaluation}) + "\n")
    began = time.process_time()
    run_report.write_report(str(tmp_path))
    assert time.process_time() - began < 6
    text = (tmp_path / "report.html").read_text()
    assert "means of 334 logged values" in text and len(text) < 1_000_000
