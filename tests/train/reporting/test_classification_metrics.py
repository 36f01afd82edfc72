"""Confidence intervals, calibration, per-class metrics and confusions, computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from ml_collections import ConfigDict
from sklearn.calibration import calibration_curve

from train.engine.evaluation import Evaluated
from train.reporting.classification_metrics import (
    compute_metrics,
    expected_calibration_error,
    reliability_bins,
    wilson_interval,
)
from train.reporting.evaluation_results import default_folder
from train.tasks.predictions import Predictions, predict_examples
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
def test_wilson_interval_matches_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_within_0_and_1_and_contains_the_proportion():
    for trials in (1, 2, 7, 10**7):
        for successes in (0, 1, trials):
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
    assert wilson_interval(0, 0) == (0, 1)


def test_expected_calibration_error_by_hand():
    # Five bins of 0.2: two predictions in (0.6, 0.8], one correct; three in (0.8, 1], all correct.
    confidence = np.array([0.7, 0.8, 0.9, 1.0, 0.95])
    correct = np.array([True, False, True, True, True])
    bins = reliability_bins(confidence, correct, num_bins=5)
    assert [one.examples for one in bins] == [0, 0, 0, 2, 3]
    assert bins[3][3:] == pytest.approx((0.75, 0.5)) and bins[4][3:] == pytest.approx((0.95, 1))
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.25 + 3 * 0.05) / 5)
    assert reliability_bins(np.array([0.0]), np.array([False]), num_bins=5)[0].examples == 1


def test_calibrated_predictions_have_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 200_000)
    correct = rng.uniform(size=confidence.size) < confidence
    assert expected_calibration_error(reliability_bins(confidence, correct)) < 0.006
    assert (
        expected_calibration_error(reliability_bins(confidence, correct & (confidence > 0.5))) > 0.1
    )


def test_per_class_metrics_confusions_and_mistakes():
    predictions = Predictions(
        record=np.arange(6) + 10,
        label=np.array([0, 0, 0, 1, 1, 2]),
        predicted=np.array([0, 1, 1, 1, 3, 2]),
        rank=np.array([0, 1, 5, 0, 2, 0]),
        confidence=np.array([0.9, 0.6, 0.8, 0.7, 0.8, 0.5]),
        of_label=np.array([0.9, 0.3, 0.01, 0.7, 0.1, 0.5]),
        outputs=5,
    )
    metrics = compute_metrics(predictions, ["a", "b", "c", "d"], top_k=[5, 3], most=2)
    assert metrics.intervals["top1"] == wilson_interval(3, 6)
    assert metrics.intervals["top3"] == metrics.intervals["top5"] == wilson_interval(5, 6)
    assert [one.examples for one in metrics.classes] == [3, 2, 1, 0]
    assert [one.recall for one in metrics.classes] == [1 / 3, 0.5, 1, None]
    assert [one.precision for one in metrics.classes] == [1, 1 / 3, 1, 0]
    assert metrics.classes[0].recall_interval == wilson_interval(1, 3)
    assert metrics.classes[3].recall_interval is None
    assert metrics.confusion.shape == (5, 5) and metrics.confusion[0, 1] == 2
    assert metrics.confused == [("a", "b", 2), ("b", "d", 1)]
    assert metrics.mistakes.tolist() == [2, 4]  # of the same confidence: in order
    assert metrics.confidence == pytest.approx(4.3 / 6)


def test_metrics_match_scikit_learn():
    """Of 400 predictions of eight outputs for seven classes, one of them without images."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 8)) * 2
    label = rng.choice(6, 400)
    logits[np.arange(400), label] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted, own = logits.argmax(1), np.take_along_axis(logits, label[:, None], 1)
    predictions = Predictions(
        record=np.arange(400),
        label=label,
        predicted=predicted,
        rank=(logits > own).sum(1),
        confidence=probabilities.max(1),
        of_label=probabilities[np.arange(400), label],
        outputs=8,
    )
    metrics = compute_metrics(predictions, list("abcdefg"), top_k=[3, 5])
    np.testing.assert_array_equal(
        metrics.confusion, sklearn.metrics.confusion_matrix(label, predicted, labels=range(8))
    )
    precision, recall, _, support = sklearn.metrics.precision_recall_fscore_support(
        label, predicted, labels=range(7), zero_division=0
    )
    assert [one.examples for one in metrics.classes] == support.tolist()
    assert [one.recall or 0 for one in metrics.classes] == pytest.approx(recall)
    assert [one.precision or 0 for one in metrics.classes] == pytest.approx(precision)
    for k in (1, 3, 5):
        hits = sklearn.metrics.top_k_accuracy_score(
            label, logits, k=k, normalize=False, labels=range(8)
        )
        expected = scipy.stats.binomtest(int(hits), 400).proportion_ci(method="wilson")
        assert metrics.intervals[f"top{k}"] == pytest.approx(tuple(expected), abs=1e-9)
    for one in metrics.classes[:6]:
        hits = round(one.recall * one.examples)
        expected = scipy.stats.binomtest(hits, one.examples).proportion_ci(method="wilson")
        assert one.recall_interval == pytest.approx(tuple(expected), abs=1e-9)
        trials = (predicted == metrics.classes.index(one)).sum()
        expected = scipy.stats.binomtest(hits, trials).proportion_ci(method="wilson")
        assert one.precision_interval == pytest.approx(tuple(expected), abs=1e-9)
    correct = (predicted == label).astype(float)
    accuracy, confidence = calibration_curve(correct, probabilities.max(1), n_bins=15)
    filled = [one for one in metrics.bins if one.examples]
    assert len(metrics.bins) == 15 and 0 < len(filled) < 15
    assert [one.accuracy for one in filled] == pytest.approx(accuracy)
    assert [one.confidence for one in filled] == pytest.approx(confidence)
    shares = np.array([one.examples for one in filled]) / 400
    assert metrics.ece == pytest.approx(np.sum(shares * abs(accuracy - confidence)))
    # The defaults list 24 at most, the most frequent and the most confident first.
    counts = [one.examples for one in metrics.confused]
    assert len(counts) == 24 and counts == sorted(counts, reverse=True)
    wrong = metrics.confusion - np.diag(np.diag(metrics.confusion))
    assert counts == np.sort(wrong, axis=None)[::-1][:24].tolist()
    sure = predictions.confidence[metrics.mistakes]
    np.testing.assert_array_equal(sure, np.sort(predictions.confidence[correct == 0])[::-1][:24])


def test_different_evaluations_get_different_folders(tmp_path):
    def folder(split, data_dir=None, **more):
        result = {"step": 44, "split": split} | more
        if data_dir is not None:
            result["dataset"] = "folder"
        config = ConfigDict({"ema": {"decay": 0.0}})
        config.dataset = {"data_dir": str(data_dir or ""), "labels": ""}
        evaluated = Evaluated(result, None, None, config, None, None)
        return default_folder(str(tmp_path), evaluated)

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
    # The report keeps one evaluation of the same data, whatever the step.
    assert folder("test[:100]", step=7) == different[2].replace("44_", "7_")


def test_sigmoids_that_saturate_are_ordered_by_their_logits():
    logits = jnp.array([[30, 40, -5]], jnp.float32)
    outputs = predict_examples(logits, jnp.array([1]), "sigmoid", keep_probabilities=True)
    assert outputs["probabilities"][0, 0] == outputs["probabilities"][0, 1]
    assert outputs["predicted"][0] == 1


def test_nan_is_in_no_bin_and_null_in_json():
    confidence, correct = np.array([np.nan, 0.9, 0.9]), np.array([True, True, False])
    bins = reliability_bins(confidence, correct, num_bins=5)
    assert [one.examples for one in bins] == [0, 0, 0, 0, 2] and bins[4].accuracy == 0.5
    content = {"loss": np.float64("nan"), "rows": [(1, float("inf")), "a"], "none": None}
    assert finite(content) == {"loss": None, "rows": [[1, None], "a"], "none": None}
