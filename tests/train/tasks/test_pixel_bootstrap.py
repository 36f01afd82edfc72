"""Intervals of the metrics of segmentation over resamples of the images."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import jaccard_score

from train.tasks.pixel_bootstrap import pixel_intervals
from train.tasks.segmentation_metrics import SEGMENTATION_METRICS, image_iou

RNG = np.random.default_rng(0)
SIDE, CLASSES = 12, 4


def predictions(images):
    """Return labels and predictions of pixels, whose accuracy differs between images."""
    labels = RNG.integers(0, CLASSES, (images, SIDE**2))
    wrong = RNG.random((images, SIDE**2)) < RNG.uniform(0, 0.7, (images, 1))
    return labels, np.where(wrong, RNG.integers(0, CLASSES, labels.shape), labels)


def counts_of(labels, predicted):
    """Return the pixels of each image by class ``(N, 3, K)``."""
    return np.stack(
        [
            [np.bincount(one, minlength=CLASSES) for one in (a, b, a[a == b])]
            for a, b in zip(labels, predicted, strict=True)
        ]
    )


def test_the_intervals_are_scipys_over_resamples_of_images():
    labels, predicted = predictions(60)
    counts = counts_of(labels, predicted)
    intervals = pixel_intervals(counts)
    assert [*intervals] == [*SEGMENTATION_METRICS]

    def statistic(index, axis=-1):
        sums = counts[index].sum(-3)  # of any number of resamples
        label, answer, both = np.moveaxis(sums, -2, 0)
        return (both / (label + answer - both)).mean(-1)

    expected = scipy.stats.bootstrap(
        (np.arange(60),), statistic, n_resamples=4000, method="percentile", rng=RNG
    ).confidence_interval
    low, high = intervals["miou"]
    width = expected.high - expected.low
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=0.08 * width)
    miou = jaccard_score(labels.ravel(), predicted.ravel(), average="macro")
    assert low < miou < high
    # Pixels of one image err together, so that resamples of pixels would vary less.
    shares = (labels == predicted).mean(1)
    spread = 2 * 1.96 * shares.std() / np.sqrt(60)
    assert np.ptp(intervals["pixel_accuracy"]) == pytest.approx(spread, rel=0.15)


def test_the_iou_of_an_image_is_scikit_learns():
    labels, predicted = predictions(5)
    labels[0], predicted[0] = 1, np.arange(SIDE**2) % 2  # not all classes
    found = image_iou(counts_of(labels, predicted))
    for label, answer, iou in zip(labels, predicted, found, strict=True):
        union = np.union1d(label, answer)
        expected = jaccard_score(label, answer, labels=union, average="macro")
        assert iou == pytest.approx(expected, abs=1e-12)
    assert np.isnan(image_iou(np.zeros((1, 3, CLASSES), int))).all()


def test_one_image_and_perfect_answers_have_no_interval():
    labels, predicted = predictions(8)
    assert pixel_intervals(counts_of(labels[:1], predicted[:1])) == {}
    assert pixel_intervals(counts_of(labels, labels)) == {}
