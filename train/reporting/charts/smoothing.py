"""Smoothed lines, and long lines reduced to the points that a chart can show."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

Points = Sequence[tuple[float, float]]

MAX_POINTS = 300  # of a line
MIN_SMOOTHED = 20  # finite points; fewer are shown as they are
_WINDOWS = 20  # in the length of a line
_MIN_IN_WINDOW = 5


def reduce_points(points: Points, max_points: int = MAX_POINTS) -> tuple[list, int]:
    """Return means of neighboring points if there are too many, and how many each is of.

    The mean of points is at the last one's x. Values that are not finite are left out of it, and
    a NaN follows it.
    """
    size = max(1, -(-len(points) // max_points))
    if size == 1:
        return list(points), 1
    reduced = []
    for start in range(0, len(points), size):
        chunk = points[start : start + size]
        x = chunk[-1][0]
        finite = [y for _, y in chunk if math.isfinite(y)]
        if finite:
            reduced.append((x, sum(finite) / len(finite)))
        if len(finite) < len(chunk):
            reduced.append((x, math.nan))
    return reduced, size


def without_outliers(points: Points) -> list[tuple[float, float]]:
    """Return the finite points but the few so far off that the others would look constant."""
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) < MIN_SMOOTHED:
        return finite
    ordered = sorted(y for _, y in finite)
    margin = max(1, len(ordered) // 50)
    smallest, largest = ordered[margin], ordered[-1 - margin]
    room = 3 * (largest - smallest) or math.inf
    return [point for point in finite if smallest - room <= point[1] <= largest + room]


def window_width(points: Points) -> float | None:
    """Return a round length in x over which to smooth a line; None for one too short."""
    xs = [x for x, y in points if math.isfinite(y)]
    if len(xs) < MIN_SMOOTHED or xs[-1] <= xs[0]:
        return None
    length = xs[-1] - xs[0]
    rough = max(length / _WINDOWS, _MIN_IN_WINDOW * length / (len(xs) - 1))
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))


def smooth(points: Points, width: float) -> list[tuple[float, float]]:
    """Return the moving average of the finite points, centered, over ``width`` in x.

    Near the start it is over a shorter part, as long before a point as after it, since curves
    often fall there; near the end it is over the part that exists.
    """
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    xs = [x for x, _ in finite]
    sums = [0.0, *accumulate(y for _, y in finite)]
    smoothed = []
    for x in xs:
        half = min(width / 2, x - xs[0]) * (1 + 1e-9)
        first, last = bisect_left(xs, x - half), bisect_right(xs, x + half)
        smoothed.append((x, (sums[last] - sums[first]) / (last - first)))
    return smoothed
