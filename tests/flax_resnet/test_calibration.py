"""The calibration of a checkpoint: its file, decisions and prediction sets."""

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from flax_resnet.calibration import (
    Calibration,
    DecisionThreshold,
    read_calibration,
    write_calibration,
)
from flax_resnet.run_reader import RunLoadError

NAMES = ("cat", "dog", "cow")
CALIBRATION = Calibration(
    step=7,
    weights="raw",
    checkpoint="",
    activation="softmax",
    dataset="pets",
    split="test",
    seed=0,
    temperature=1.7,
    decisions={"cat": DecisionThreshold(0.25, "recall=0.95")},
    fitted=(0.1, 0.2, 0.3),
    held_out=(0.15, 0.25),
)
KEY = (7, "raw", "softmax", NAMES)


def with_probabilities(fitted, held_out=(0.5,)):
    return dataclasses.replace(CALIBRATION, fitted=sorted(fitted), held_out=held_out)


def test_what_is_written_is_read(tmp_path):
    write_calibration(str(tmp_path), CALIBRATION)
    assert read_calibration(str(tmp_path), *KEY) == (CALIBRATION, "")
    found, reason = read_calibration(str(tmp_path), 8, *KEY[1:])
    assert found is None and "is calibrated for 7_raw, not for step 8 (raw weights)" in reason
    assert read_calibration(str(tmp_path / "other"), *KEY) == (None, "")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("1.7", "1.6"), "it was changed: its checksum differs"),
        (lambda text: text.replace("0.25", "0.35"), "it was changed"),
        (lambda text: text.replace("1.7", "NaN"), "temperature must be a number from 0.01 to 100"),
        (lambda text: text.replace('"step": 7', '"step": "7"'), "step must be an integer"),
        (lambda text: text[:-9], "not valid JSON"),
        (lambda text: "[]", "must be an object"),
    ],
)
def test_a_changed_file_is_an_error(tmp_path, change, message):
    path = write_calibration(str(tmp_path), CALIBRATION)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(change(text))
    with pytest.raises(RunLoadError, match=message):
        read_calibration(str(tmp_path), *KEY)


@pytest.mark.parametrize(
    "key",
    [(8, *KEY[1:]), (7, "ema", *KEY[2:]), (7, "raw", "sigmoid", NAMES), (*KEY[:3], ("dog", "cow"))],
)
def test_a_file_of_another_run_is_an_error(tmp_path, key):
    path = write_calibration(str(tmp_path), CALIBRATION)
    content = open(path).read()
    (tmp_path / "calibration" / f"{key[0]}_{key[1]}.json").write_text(content)
    with pytest.raises(RunLoadError, match="it belongs to another run, step or weights"):
        read_calibration(str(tmp_path), *key)
    assert json.loads(content)["step"] == 7


@pytest.mark.parametrize(
    "thresholds, probabilities, expected",
    [
        ({"cat": 0.25}, [0.25, 0.6, 0.15], "cat"),
        ({"cat": 0.25}, [0.24, 0.61, 0.15], "dog"),
        ({"cat": 0.9}, [0.8, 0.05, 0.15], "cow"),
        ({"cat": 0.2, "cow": 0.2}, [0.3, 0.31, 0.39], "cow"),
        ({"cat": 0.5, "dog": 0.5, "cow": 0.5}, [0.4, 0.35, 0.25], None),
        ({}, [0.3, 0.4, 0.3], "dog"),
    ],
)
def test_decisions(thresholds, probabilities, expected):
    decisions = {name: DecisionThreshold(value) for name, value in thresholds.items()}
    calibration = dataclasses.replace(CALIBRATION, decisions=decisions)
    [index] = calibration.decide(np.array([probabilities]), NAMES)
    assert index == (-1 if expected is None else NAMES.index(expected))


@pytest.mark.parametrize("images", [9, 10, 19, 99, 180])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_sets_cover_as_much_as_the_theory_has_it(images, coverage):
    """With distinct scores the mean coverage is ceil((n + 1) c) / (n + 1) (Vovk et al. 2005)."""
    rng = np.random.default_rng(0)
    covered = [
        1 - with_probabilities(rng.random(images)).set_threshold(coverage) for _ in range(3000)
    ]
    expected = math.ceil(round((images + 1) * coverage, 9)) / (images + 1)
    assert np.mean(covered) == pytest.approx(expected, abs=0.008)


def test_coverage_of_digits_over_50_resplits():
    """On probabilities that are far from calibrated: those of naive Bayes."""
    images, labels = load_digits(return_X_y=True)
    model = GaussianNB(var_smoothing=0.05).fit(images[:900], labels[:900])
    probabilities = model.predict_proba(images[900:])
    own = probabilities[np.arange(len(probabilities)), labels[900:]]
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(50):
        order = rng.permutation(len(own))
        half = len(own) // 2
        calibration = with_probabilities(own[order[:half]], own[order[half:]])
        threshold = calibration.set_threshold(0.9)
        sets = probabilities[order[half:]] >= threshold
        holds = sets[np.arange(len(sets)), labels[900:][order[half:]]]
        assert calibration.covered(threshold) == holds.sum()
        shares.append(holds.mean())
    assert 0.89 < np.mean(shares) < 0.92


def test_too_few_images_for_a_coverage():
    calibration = with_probabilities(np.linspace(0.1, 0.9, 9))
    assert calibration.set_threshold(0.9) == 0.1
    with pytest.raises(
        ValueError, match=r"the 9 images of the calibration, which allow at most 0\.9"
    ):
        calibration.set_threshold(0.91)
