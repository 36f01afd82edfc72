"""ROC and precision–recall curves against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from train.tasks.ranking_curves import MAX_POINTS, macro_average, ranking_curves, thinned


def example(examples, share, spread, digits=None, seed=0):
    """Return scores and labels; rounded scores are often equal."""
    rng = np.random.default_rng(seed)
    positive = rng.random(examples) < share
    positive[:2] = True, False
    scores = 1 / (1 + np.exp(-rng.normal(positive.astype(float), spread, examples)))
    scores = scores.astype(np.float32)
    return (scores if digits is None else scores.round(digits)), positive


CASES = (
    *((20_000, 0.3, 0.7, None), (5000, 0.01, 1.0, None), (3000, 0.5, 1.0, 1)),
    *((2, 0.5, 1.0, None), (40, 0.9, 5.0, 0), (999, 0.2, 0.01, None)),
)


@pytest.mark.parametrize("case", CASES)
def test_areas_and_points_are_those_of_scikit_learn(case):
    scores, positive = example(*case)
    curves = ranking_curves(scores, positive)
    assert curves.auroc == pytest.approx(roc_auc_score(positive, scores), abs=1e-9)
    expected = average_precision_score(positive, scores)
    assert curves.average_precision == pytest.approx(expected, abs=1e-9)
    assert curves.positives == positive.mean()
    x, y, _ = roc_curve(positive, scores, drop_intermediate=False)
    for point in np.stack([x, y], axis=1)[:: len(x) // 500 + 1]:  # all lie on the line
        assert distance(point, curves.roc) < 1e-12
    precision, recall, _ = precision_recall_curve(positive, scores)
    steps = {tuple(point) for point in curves.precision_recall.round(12).tolist()}
    right = recall > 0
    grown = np.diff(recall, append=0) != 0  # the last of equal recall has the highest precision
    expected = np.stack([recall, precision], axis=1)[right & grown].round(12).tolist()
    assert steps.issuperset(map(tuple, expected))


@pytest.mark.parametrize("case", CASES)
def test_thinned_curves_have_few_points_and_the_same_area(case):
    curves = ranking_curves(*example(*case))
    for points, area in (
        (curves.roc, curves.auroc),
        (curves.precision_recall, curves.average_precision),
    ):
        few = thinned(points)
        assert len(few) <= min(MAX_POINTS, len(points))
        assert np.trapezoid(few[:, 1], few[:, 0]) == pytest.approx(area, abs=1e-3)
        assert (np.diff(few[:, 0]) >= 0).all()
        assert (few[0] == points[0]).all() and (few[-1] == points[-1]).all()
        if len(points) < 5000:
            assert max(distance(point, few) for point in points[:: len(points) // 200 + 1]) < 0.02


def test_thinning_stops_at_its_tolerance_and_keeps_corners():
    x = np.linspace(0, 1, 1001)
    corner = np.stack([x, np.abs(x - 0.25)], axis=1)
    assert thinned(corner)[:, 0].tolist() == [0, 0.25, 1]
    wave = np.stack([x, np.sin(20 * x)], axis=1)
    few = thinned(wave, 1000, 0.01)
    assert 10 < len(few) < 100 and max(distance(point, few) for point in wave) <= 0.01
    assert len(thinned(wave, 7)) == 7
    assert thinned(corner[:1]).tolist() == [[0, 0.25]]


def distance(point, line):
    """Return the distance of a point from a line, over all its segments."""
    starts, directions = line[:-1], line[1:] - line[:-1]
    lengths = np.maximum((directions**2).sum(axis=1), 1e-300)
    along = np.clip(((point - starts) * directions).sum(axis=1) / lengths, 0, 1)
    return np.hypot(*(starts + along[:, None] * directions - point).T).min()


def test_averages_over_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.random((700, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.6]
    labels[0], labels[1] = True, False
    scores = (rng.normal(labels * 1.0, 1).clip(-2, 3) / 5 + 0.4).astype(np.float32)
    each = [ranking_curves(scores[:, k], labels[:, k]) for k in range(6)]
    macro = macro_average(each)
    assert macro.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert macro.average_precision == pytest.approx(
        average_precision_score(labels, scores), abs=1e-9
    )
    assert np.trapezoid(*macro.roc.T[::-1]) == pytest.approx(macro.auroc, abs=1e-3)
    area = macro.precision_recall[:, 1].mean()
    assert area == pytest.approx(macro.average_precision, abs=1e-3)
    # The definition: the mean of the curves at one false positive rate, between two points.
    x = macro.roc[500, 0]
    at = [np.interp(x, *roc_curve(labels[:, k], scores[:, k])[:2]) for k in range(6)]
    assert macro.roc[500, 1] == pytest.approx(np.mean(at), abs=1e-9)
    micro = ranking_curves(scores.ravel(), labels.ravel())
    assert micro.auroc == pytest.approx(roc_auc_score(labels, scores, average="micro"), abs=1e-9)
    assert micro.average_precision == pytest.approx(
        average_precision_score(labels, scores, average="micro"), abs=1e-9
    )
    assert macro_average([]) is None


def test_undefined_curves():
    scores = np.linspace(0, 1, 5)
    assert ranking_curves(scores, np.ones(5, bool)) is None
    assert ranking_curves(scores, np.zeros(5, bool)) is None
    nan = np.append(scores, np.nan)
    assert ranking_curves(nan, np.arange(6) % 2 > 0) is None
    assert ranking_curves(nan, np.arange(6) % 2 == 0) is None
