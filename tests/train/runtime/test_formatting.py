"""Names that hold anything, where people read them."""

import numpy as np
import pytest
from PIL import Image

from train.config.loading import default_config
from train.data.loader import DataLoader
from train.data.reader import BadRecord, BadRecords
from train.engine.evaluation import Evaluated
from train.engine.predictions import Predictions
from train.reporting import plots
from train.reporting.evaluation_results import captions_of, score_of, summary
from train.runtime.formatting import format_bytes, one_line, shortened
from train.workdir import run_files


def test_what_would_break_a_line_is_spelled():
    assert one_line("a\nb\r\x1b[2J\x9b\u2028\u202e") == r"a\nb\r\x1b[2J\x9b\u2028\u202e"
    shown = "é ü 狗\u3000\u00a0👩\u200d🔬 \\n"
    assert one_line(shown) == shown


def test_an_ellipsis_shows_what_was_cut():
    assert shortened("a dog", 5) == "a dog" and shortened("a big dog", 6) == "a big…"
    assert shortened("a\nbc", 5) == r"a\nbc"


def test_class_names_with_line_breaks_are_told_in_a_line(tmp_path):
    for name in ("a\rcat", "dog\nhouse"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "1.png").touch()
    config = default_config()
    config.dataset.name, config.dataset.data_dir = "folder", str(tmp_path)
    split = DataLoader(config, "val", training=False)
    assert run_files.list_names(split.source.class_names) == r"a\rcat, dog\nhouse"

    labels, wrong = np.array([0, 1]), np.array([1, 0])
    sure = np.full(2, 0.75)
    predictions = Predictions(labels, labels, wrong, np.ones(2), sure, sure / 3, outputs=2)
    result = {"split": "val", "examples": 2, "top1": 0.0, "loss": 1.0, "step": 3}
    evaluated = Evaluated(result, predictions, split, config, "raw", None, None)
    told = summary(evaluated, score_of(evaluated))
    assert [line.split()[0] for line in told.split("\n")] == [
        *("folder", "top-1", "loss", "calibration", "worst", "mistaken")
    ]
    assert "\r" not in told and r"a\rcat as dog\nhouse (1)" in told
    [first, _] = captions_of(predictions, [0, 1], list(split.source.class_names))
    assert first == "is a\\rcat\n→ dog\\nhouse 75%"

    warned = []
    BadRecords(warn=warned.append).add(split.reader, [BadRecord(1, split.source.name_of(1), "no")])
    assert warned == [r"val image val/dog\nhouse/1.png is left out: no"]


def test_long_captions_are_not_cut(tmp_path):
    def picture(caption):
        plots.draw_samples(str(tmp_path), np.zeros((2, 8, 8, 3), np.uint8), [caption, "cat"])
        with Image.open(tmp_path / "samples.png") as image:
            return np.asarray(image)

    name = "soft-coated wheaten terrier"
    long, longer = picture(name), picture(f"{name}s")
    assert long.shape == longer.shape and not np.array_equal(long, longer)
    assert np.array_equal(picture("cat"), picture("cat"))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (147897477120, "148 GB")],
)
def test_bytes_are_formatted_with_a_unit(number, text):
    assert format_bytes(number) == text
