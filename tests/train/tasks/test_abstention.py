"""The abstention curve, compared with counting."""

import numpy as np
import pytest

from train.tasks.abstention import abstention_curve, area_under_risk


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    confidence = rng.integers(1, 30, 500) / 30
    return confidence, rng.random(500) < confidence


def test_points_have_the_accuracy_of_the_answered_images(predictions):
    confidence, correct = predictions
    points = abstention_curve(confidence, correct)
    assert [p.confidence for p in points] == sorted(set(confidence), reverse=True)
    for point in points:
        answered = confidence >= point.confidence
        assert point.coverage == answered.mean()
        assert point.accuracy == pytest.approx(correct[answered].mean())


def test_long_curves_are_thinned_and_end_with_all_images():
    confidence = np.random.default_rng(0).random(5000)
    points = abstention_curve(confidence, confidence > 0.5)
    assert len(points) == 200 and points[-1].coverage == 1
    assert np.diff([p.coverage for p in points]).max() < 0.01
    for point in points:
        assert point.coverage == (confidence >= point.confidence).mean()


def test_area_is_the_mean_risk_over_random_orders_of_equal_confidences(predictions):
    confidence, correct = predictions
    rng = np.random.default_rng(1)
    areas = []
    for _ in range(400):
        order = np.lexsort((rng.random(500), -confidence))
        risks = np.cumsum(~correct[order]) / np.arange(1, 501)
        areas.append(risks.mean())
    assert area_under_risk(confidence, correct) == pytest.approx(np.mean(areas), abs=2e-3)
