"""Names with any characters, counts, sizes and durations in text."""

import time

import numpy as np
import pytest
from PIL import Image

from train.config.loading import default_config
from train.data.corrupt_records import CorruptRecords
from train.data.loader import DataLoader
from train.data.reader import CorruptRecord
from train.engine.evaluation import Evaluated
from train.reporting import plots
from train.reporting.evaluation_results import evaluation_metrics, prediction_captions, summary
from train.runtime.formatting import (
    format_bytes,
    format_clock,
    format_count,
    format_duration,
    format_number,
    format_time,
    join_names,
    pluralize,
)
from train.tasks.predictions import Predictions


def test_join_names_counts_the_names_left_out():
    assert join_names(["a", "b\n"]) == r"a, b\n"
    assert join_names(list("abcd"), 2) == "a, b and 2 more"


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (format_bytes, 0, "0 bytes"),
        (format_bytes, 999, "999 bytes"),
        (format_bytes, 1500, "1.5 kB"),
        (format_bytes, 147897477120, "148 GB"),
        (format_count, 1_821_399_040, "1.82 billion"),
        (format_count, 25_557_032, "25.6 million"),
        (format_count, 4096, "4,096"),
        (format_clock, 7.4, "0:07"),
        (format_clock, 3787, "1:03:07"),
        (format_duration, 2.42, "2.4 s"),
        (format_duration, 187, "3:07"),
        (format_number, 0.0000012, "1.2e-6"),
        (format_number, 1.5e30, "1.5e30"),
        (format_number, 1.25, "1.25"),
        (format_number, -12500.4, "-12,500"),
        (format_number, 0, "0"),
        (format_number, float("nan"), "nan"),
    ],
)
def test_numbers_are_readable(function, value, text):
    assert function(value) == text


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2026-11-30 14:05 UTC"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-11-30 15:05 CET"),
        ("<+0530>-5:30", "2026-11-30 19:35 UTC+0530"),
    ],
)
def test_times_are_local_and_have_a_zone(zone, text, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for moment in ("2026-11-30T14:05:59+00:00", "2026-11-30T14:05", 1796047559):
            assert format_time(moment) == text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_pluralize_adds_an_s_except_for_one():
    assert [pluralize(n, "step") for n in (0, 1, 1000)] == ["0 steps", "1 step", "1,000 steps"]
    assert [pluralize(n, "more class") for n in (1, 2)] == ["1 more class", "2 more classes"]


def test_class_names_with_line_breaks_stay_on_one_line(tmp_path):
    for name in ("a\rcat", "dog\nhouse"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "1.png").touch()
    config = default_config()
    config.dataset.name, config.dataset.data_dir = "folder", str(tmp_path)
    loader = DataLoader(config, "val", training=False)
    assert join_names(loader.source.class_names) == r"a\rcat, dog\nhouse"

    labels, wrong = np.array([0, 1]), np.array([1, 0])
    confidence = np.full(2, 0.75)
    predictions = Predictions(
        labels, labels, wrong, np.ones(2), confidence, outputs=2, of_label=confidence / 3
    )
    result = {"split": "val", "examples": 2, "top1": 0.0, "loss": 1.0, "baseline": 0.5, "step": 3}
    evaluated = Evaluated(result, predictions, loader, config, None, None)
    text = summary(evaluated, evaluation_metrics(evaluated))
    assert [line.split()[0] for line in text.split("\n")] == [
        *("folder", "top-1", "baseline", "loss", "calibration", "worst", "confusions")
    ]
    assert "\r" not in text and r"a\rcat → dog\nhouse (1)" in text
    assert r"worst recall a\rcat: 0.0 % (1 image), dog\nhouse: 0.0 % (1 image)" in text
    [first, _] = prediction_captions(predictions, [0, 1], list(loader.source.class_names))
    assert first == "true: a\\rcat (25 %)\npredicted: dog\\nhouse (75 %)"

    warnings = []
    record = CorruptRecord(1, loader.source.record_name(1), "no")
    CorruptRecords(warn=warnings.append).add(loader.reader, [record])
    assert warnings == [r"skipping corrupt val image val/dog\nhouse/1.png: no"]


def test_long_captions_are_not_cut(tmp_path):
    def picture(caption):
        path = str(tmp_path / "samples.png")
        plots.draw_grid(path, plots.Pictures(np.zeros((2, 8, 8, 3), np.uint8), [caption, "cat"]))
        with Image.open(path) as image:
            return np.asarray(image)

    name = "soft-coated wheaten terrier"
    long, longer = picture(name), picture(f"{name}s")
    assert long.shape == longer.shape and not np.array_equal(long, longer)
    assert np.array_equal(picture("cat"), picture("cat"))
