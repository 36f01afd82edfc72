"""Bootstrap intervals against SciPy's, and the metrics of single resamples against scikit-learn."""

import functools

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tests.train.tasks.test_metrics import REFERENCES
from train.tasks import bootstrap
from train.tasks.bootstrap import bootstrap_intervals
from train.tasks.metrics import RANKING_METRICS


@pytest.fixture(scope="module")
def predictions():
    """80 labels of three classes, probabilities of two digits with many ties, and predictions."""
    rng = np.random.default_rng(1)
    label = rng.choice(3, 80, p=(0.6, 0.3, 0.1))
    probabilities = rng.dirichlet(np.ones(3), 80) + 0.5 * np.eye(3)[label]
    probabilities = np.round(probabilities / 1.5, 2).astype(np.float32)
    return label, probabilities.argmax(1), probabilities


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:No positive")
def test_intervals_match_those_of_scipy(predictions):
    """Up to the chance in which images are resampled, a few percent of the width."""
    label, predicted, probabilities = predictions
    references = {
        name: functools.partial(lambda metric, i: metric(label[i], predicted[i]), metric)
        for name, metric in REFERENCES.items()
    }
    one_hot = np.eye(3)[label]
    ranking = sklearn.metrics.roc_auc_score, sklearn.metrics.average_precision_score
    for name, metric in zip(RANKING_METRICS, ranking, strict=True):
        references[name] = functools.partial(lambda m, i: m(one_hot[i], probabilities[i]), metric)
    theirs = scipy.stats.bootstrap(
        (np.arange(80),),
        lambda images: [metric(images) for metric in references.values()],
        vectorized=False,
        method="percentile",
        n_resamples=300,
        rng=np.random.default_rng(3),
    ).confidence_interval
    ours = bootstrap_intervals(*predictions, 3)
    assert [*ours] == [*references]
    for interval, low, high in zip(ours.values(), theirs.low, theirs.high, strict=True):
        assert interval == pytest.approx((low, high), abs=0.15 * (high - low))
    assert ours == bootstrap_intervals(*predictions, 3)  # of a fixed seed


def test_the_ranking_of_a_resample_is_that_of_its_images(predictions):
    label, _, probabilities = predictions
    drawn = np.random.default_rng(0).integers(0, 80, (20, 80))
    weights = np.array([np.bincount(images, minlength=80) for images in drawn])
    for k in range(3):
        auroc, precision = bootstrap._Ranked(probabilities[:, k], label == k).resampled(weights)
        for images, area, average in zip(drawn, auroc, precision, strict=True):
            positive, scores = label[images] == k, probabilities[images, k]
            expected = sklearn.metrics.roc_auc_score(positive, scores)
            assert area == pytest.approx(expected, abs=1e-12)
            expected = sklearn.metrics.average_precision_score(positive, scores)
            assert average == pytest.approx(expected, abs=1e-12)


def test_intervals_that_would_take_long_or_are_undefined_are_left_out(predictions, monkeypatch):
    label, predicted, probabilities = predictions
    assert not {*RANKING_METRICS} & {*bootstrap_intervals(label, predicted, None, 3)}
    # All of one class, all right: the same in each resample, which says nothing about others.
    assert bootstrap_intervals(label * 0, label * 0, probabilities, 3) == {}
    monkeypatch.setattr(bootstrap, "MAX_PAIRS", 5)
    monkeypatch.setattr(bootstrap, "MAX_RESAMPLED", 239)
    assert bootstrap_intervals(*predictions, 3) == {}


def test_intervals_without_the_metric_itself_are_left_out():
    """Of classes with two images each, resamples have copies, which raise average precision."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(50), 2)
    probabilities = rng.dirichlet(np.full(50, 0.1), 100) + 0.02 * np.eye(50)[label]
    one_hot = label[:, None] == np.arange(50)
    precision = sklearn.metrics.average_precision_score(one_hot, probabilities, average="macro")
    intervals = bootstrap.bootstrap_intervals(label, probabilities.argmax(1), probabilities, 50)
    assert "average_precision_macro" not in intervals
    samples = bootstrap._resample_ranking(one_hot, probabilities)[1]
    assert samples[0] == pytest.approx(precision, abs=1e-12)
    assert np.quantile(samples[1:], 0.025) > precision  # the reason


def test_differences_of_average_precision_are_those_of_scikit_learn():
    """Of the same resamples, which the test draws again from the fixed seed."""
    rng = np.random.default_rng(5)
    positive = rng.random((60, 3)) < [0.5, 0.2, 0]  # no image is of the last class
    first, second = (np.round(rng.random((2, 60, 3)) + 0.4 * positive, 2) / 1.4).astype(np.float32)
    by_class, overall = bootstrap.average_precision_differences(positive, first, second)
    rng, samples = np.random.default_rng(bootstrap.SEED), []
    for _ in range(0, bootstrap.RESAMPLES, bootstrap.CHUNK):
        for images in rng.integers(0, 60, (bootstrap.CHUNK, 60)):
            labels = positive[images][:, :2]
            scores = (
                sklearn.metrics.average_precision_score(labels, p[images][:, :2], average=None)
                for p in (first, second)
            )
            before, after = scores
            samples.append(after - before)
    samples = np.array(samples)
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    assert by_class[2] is None
    for k in range(2):
        assert by_class[k] == pytest.approx((low[k], high[k]), abs=1e-6)
    expected = np.quantile(samples.mean(axis=1), (0.025, 0.975))
    assert overall == pytest.approx(expected, abs=1e-6)


def test_differences_of_many_images_have_no_interval():
    positive = np.zeros((bootstrap.MAX_RESAMPLED + 1, 1), bool)
    assert bootstrap.average_precision_differences(positive, positive, positive) is None
