"""Smoothed and reduced lines, compared with NumPy."""

import math

import numpy as np
import pytest

from train.reporting.charts.smoothing import (
    MAX_POINTS,
    reduce_points,
    smooth,
    window_width,
    without_outliers,
)

NAN = math.nan


def test_smoothed_line_is_a_centered_mean_of_the_finite_points():
    rng = np.random.default_rng(0)
    x, y = np.arange(200) / 10, rng.normal(size=200).cumsum()
    y[[50, 51, 120]] = NAN
    smoothed = smooth(list(zip(x, y, strict=True)), 2.0)
    assert [at for at, _ in smoothed] == [a for a, b in zip(x, y, strict=True) if b == b]
    for at, value in smoothed:
        half = min(1.0, at - x[0])  # near the start as long before as after
        inside = np.abs(x - at) <= half + 1e-6
        assert value == pytest.approx(np.nanmean(y[inside]))


def test_smoothing_keeps_constants_and_straight_lines():
    line = [(n / 10, 2 * n) for n in range(100)]
    for (_, expected), (x, value) in zip(line, smooth(line, 1.0), strict=True):
        assert value == pytest.approx(expected) or x > line[-1][0] - 0.5  # the end is one-sided
    assert {value for _, value in smooth([(n, 3.0) for n in range(50)], 7)} == {3.0}


@pytest.mark.parametrize(
    ("length", "points", "width"),
    [(300, 300, 20), (90, 300, 5), (20, 200, 1), (3, 30, 1), (3, 300, 0.2), (1, 19, None)],
)
def test_window_is_a_round_part_of_the_run_with_five_points_or_more(length, points, width):
    line = [(length * n / (points - 1), 1.0) for n in range(points)]
    assert window_width(line) == (None if width is None else pytest.approx(width))
    assert window_width([(1.0, 2.0)] * 50) is None


def test_long_lines_are_means_of_neighbors_with_gaps():
    values = np.random.default_rng(1).normal(size=1000)
    values[500] = NAN
    points, size = reduce_points(list(enumerate(values)))
    assert size == 4 and len(points) == 251 and len(points) <= MAX_POINTS
    finite = [(x, y) for x, y in points if y == y]
    expected = [np.nanmean(values[n : n + 4]) for n in range(0, 1000, 4)]
    np.testing.assert_allclose([y for _, y in finite], expected)
    assert [x for x, _ in finite] == list(range(3, 1000, 4))
    assert [x for x, y in points if y != y] == [503]
    assert reduce_points([(0, 1.0), (1, NAN)])[1] == 1


def test_only_a_few_values_far_off_are_outliers():
    values = [1.0 + n % 2 / 10 for n in range(50)]
    values[30] = 1e6
    assert len(without_outliers(list(enumerate(values)))) == 49
    falling = [(n, 3 * math.exp(-n / 20)) for n in range(200)]
    assert without_outliers(falling) == falling
    warm_up = [(n, min(1.0, n / 10)) for n in range(100)]
    assert without_outliers(warm_up) == warm_up
