"""Intervals, calibration, classes and confusions, against values by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from train.engine.evaluation import Evaluated
from train.engine.predictions import Predictions, predict_examples
from train.reporting.classification_metrics import calibration_error, reliability, score, wilson
from train.reporting.evaluation_results import folder_of
from train.workdir.metrics_log import finite


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17), table I, method 3, to four places.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilsons_interval_of_known_cases(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_stays_within_0_and_1():
    for trials in (1, 2, 7, 10**7):
        for successes in (0, 1, trials):
            low, high = wilson(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
    assert wilson(0, 0) == (0, 1)


def test_calibration_error_by_hand():
    # Five bins of 0.2: two predict_examples in (0.6, 0.8], one of them right; three in (0.8, 1], all right.
    confidence = np.array([0.7, 0.8, 0.9, 1.0, 0.95])
    right = np.array([True, False, True, True, True])
    bins = reliability(confidence, right, bins=5)
    assert [one.examples for one in bins] == [0, 0, 0, 2, 3]
    assert bins[3][3:] == pytest.approx((0.75, 0.5)) and bins[4][3:] == pytest.approx((0.95, 1))
    assert calibration_error(bins) == pytest.approx((2 * 0.25 + 3 * 0.05) / 5)
    assert reliability(np.array([0.0]), np.array([False]), bins=5)[0].examples == 1


def test_a_net_that_is_as_sure_as_it_is_right_has_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 200_000)
    right = rng.uniform(size=confidence.size) < confidence
    assert calibration_error(reliability(confidence, right)) < 0.006
    assert calibration_error(reliability(confidence, right & (confidence > 0.5))) > 0.1


def test_classes_confusions_and_mistakes():
    predictions = Predictions(
        record=np.arange(6) + 10,
        label=np.array([0, 0, 0, 1, 1, 2]),
        predicted=np.array([0, 1, 1, 1, 3, 2]),
        rank=np.array([0, 1, 5, 0, 2, 0]),
        confidence=np.array([0.9, 0.6, 0.8, 0.7, 0.8, 0.5]),
        of_label=np.array([0.9, 0.3, 0.01, 0.7, 0.1, 0.5]),
        outputs=5,
    )
    scores = score(predictions, ["a", "b", "c", "d"], top5=True, most=2)
    assert scores.top1 == wilson(3, 6) and scores.top5 == wilson(5, 6)
    assert [one.examples for one in scores.classes] == [3, 2, 1, 0]
    assert [one.accuracy for one in scores.classes] == [1 / 3, 0.5, 1, None]
    assert [one.precision for one in scores.classes] == [1, 1 / 3, 1, 0]
    assert scores.classes[0].interval == wilson(1, 3) and scores.classes[3].interval is None
    assert scores.confusion.shape == (5, 5) and scores.confusion[0, 1] == 2
    assert scores.confused == [("a", "b", 2), ("b", "d", 1)]
    assert scores.mistakes.tolist() == [2, 4]  # as sure of both: the first one first
    assert scores.confidence == pytest.approx(4.3 / 6)


def test_what_is_another_evaluation_has_another_folder(tmp_path):
    def folder(split, data_dir=None, **more):
        result = {"step": 44, "split": split, **more}
        if data_dir is not None:
            result["dataset"] = "folder"
        config = ConfigDict({"dataset": {"data_dir": str(data_dir or "")}, "ema": {"decay": 0.0}})
        evaluated = Evaluated(result, None, None, config, "raw", None, None)
        return folder_of(str(tmp_path), evaluated)

    (tmp_path / "a" / "photos").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    different = [
        folder("test"),
        folder("test", tta="flip"),
        folder("test[:100]"),
        folder("test[100:]"),
        folder("test", tmp_path / "a" / "photos"),
        folder("test", tmp_path / "b" / "photos"),
    ]
    assert len(set(different)) == 6 and different[0] == str(tmp_path / "evaluation" / "44_test")
    assert folder("test", tmp_path / "link" / "photos") == different[4]
    assert folder("test[:100]") == different[2]


def test_who_is_sure_of_two_classes_says_the_one_with_the_larger_logit():
    logits = jnp.array([[30, 40, -5]], jnp.float32)
    told = predict_examples(logits, jnp.array([1]), "binary_cross_entropy", keep_probabilities=True)
    assert told["probabilities"][0, 0] == told["probabilities"][0, 1]
    assert told["predicted"][0] == 1


def test_what_is_no_number_is_left_out_of_the_bins_and_null_in_json():
    confidence, right = np.array([np.nan, 0.9, 0.9]), np.array([True, True, False])
    bins = reliability(confidence, right, bins=5)
    assert [one.examples for one in bins] == [0, 0, 0, 0, 2] and bins[4].accuracy == 0.5
    content = {"loss": np.float64("nan"), "rows": [(1, float("inf")), "a"], "none": None}
    assert finite(content) == {"loss": None, "rows": [[1, None], "a"], "none": None}
