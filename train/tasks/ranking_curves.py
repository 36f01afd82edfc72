"""ROC and precision–recall curves of probabilities, with exact areas and few points.

The areas equal ``roc_auc_score`` and ``average_precision_score`` of scikit-learn, also for
``average="macro"`` and ``"micro"``. The curves go through the points of ``roc_curve`` and
``precision_recall_curve``; points that change nothing that can be seen are left out.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

MAX_POINTS = 200  # of a curve
TOLERANCE = 3e-4  # distance from the exact curve, unless that takes too many points
_GRID = 1000  # steps of means of curves


class Curves(NamedTuple):
    """The curves of a ranking by probability.

    Attributes:
      auroc: area under the ROC curve.
      average_precision: area under the stepped precision–recall curve.
      positives: share of the examples that are positive, the precision of a ranking at random.
      roc: false positive rate and recall, ``(points, 2)``, from (0, 0) to (1, 1).
      precision_recall: recall and precision, ``(points, 2)``, in ascending order of the recall.
    """

    auroc: float
    average_precision: float
    positives: float
    roc: np.ndarray
    precision_recall: np.ndarray


def ranking_curves(scores: np.ndarray, positive: np.ndarray) -> Curves | None:
    """Return the exact curves of scores; None if all or no examples are positive, or one is NaN.

    Examples of equal scores are one point. ROC curves have a point at both ends of each line
    segment, precision–recall curves at both ends of each step.

    Args:
      scores: probabilities ``(N,)``.
      positive: bool ``(N,)``.
    """
    # Only the scores of positive examples are places where the curves turn; the others are sorted
    # without their places, which takes a third of the time.
    found, others = scores[positive], np.sort(scores[~positive])
    if not len(found) or not len(others) or np.isnan(others[-1]) or np.isnan(found).any():
        return None
    thresholds, counts = np.unique(found, return_counts=True)
    thresholds, counts = thresholds[::-1], counts[::-1]
    hits = np.cumsum(counts)
    above = len(others) - np.searchsorted(others, thresholds, side="right")
    reached = len(others) - np.searchsorted(others, thresholds, side="left")
    before = hits - counts
    # Twice the area in integers: a step straight to the right, then a line over equal scores.
    steps = np.append(above, len(others)) - np.append(0, reached)
    area = (2 * steps * np.append(before, hits[-1])).sum()
    area += ((reached - above) * (before + hits)).sum()
    precision = hits / (hits + reached)
    roc = np.stack([_pairs(above, reached), _pairs(before, hits)], axis=1)
    roc = np.concatenate([[[0, 0]], roc, [[len(others), hits[-1]]]])
    stepped = np.stack([_pairs(before, hits) / hits[-1], _pairs(precision, precision)], axis=1)
    return Curves(
        float(area / (2.0 * hits[-1] * len(others))),
        float((counts * precision).sum() / hits[-1]),
        len(found) / len(scores),
        _distinct(roc / [len(others), hits[-1]]),
        _distinct(stepped),
    )


def macro_average(curves: Iterable[Curves]) -> Curves | None:
    """Return the mean curves of several classes, and the means of their areas; None without any.

    The mean is that of the recall over the false positive rate, and of the precision over the
    recall, at 1,000 values of each.
    """
    grid = (np.arange(_GRID) + 0.5) / _GRID
    roc, precision, areas = np.zeros(_GRID), np.zeros(_GRID), []
    for one in curves:
        x, y = one.roc.T
        roc += _interpolate(grid, x, y)
        recall, stepped = one.precision_recall.T
        precision += stepped[np.searchsorted(recall, grid, side="left")]
        areas.append(one[:3])
    if not areas:
        return None
    ends = [[0, 0]], np.stack([grid, roc / len(areas)], axis=1), [[1, 1]]
    means = np.stack([grid, precision / len(areas)], axis=1)
    return Curves(*np.mean(areas, axis=0).tolist(), np.concatenate(ends), means)


def thinned(points: np.ndarray, most: int = MAX_POINTS, tolerance: float = TOLERANCE) -> np.ndarray:
    """Return some of the points of a line, both ends included (Ramer 1972; Douglas, Peucker 1973).

    The point that is farthest from the thinned line is added until that distance is at most
    ``tolerance`` or there are ``most`` points.

    Args:
      points: ``(N, 2)``, N at least 1.
      most: maximum number of points, at least 2.
      tolerance: distance in the units of the points.
    """
    kept, parts = [0, len(points) - 1], []

    def add(start: int, end: int) -> None:
        if end - start > 1:
            distances = _distances(points[start + 1 : end], points[start], points[end])
            farthest = int(distances.argmax())
            entry = (-float(distances[farthest]), start, start + 1 + farthest, end)
            heapq.heappush(parts, entry)

    add(*kept)
    while parts and len(kept) < most and -parts[0][0] > tolerance:
        _, start, middle, end = heapq.heappop(parts)
        kept.append(middle)
        add(start, middle)
        add(middle, end)
    return points[np.unique(kept)]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distances of points from the line segment between two others."""
    line = end - start
    along = (points - start) @ line / max(line @ line, 1e-300)
    nearest = start + np.clip(along, 0, 1)[:, None] * line
    return np.hypot(*(points - nearest).T)


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the elements of both in turn."""
    return np.stack([first, second], axis=1).ravel()


def _distinct(points: np.ndarray) -> np.ndarray:
    """Return points without repetitions of the one before."""
    return points[np.append(True, (points[1:] != points[:-1]).any(axis=1))]


def _interpolate(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the values of a line of ascending ``x`` from 0 to 1; where it jumps, the last one."""
    left = np.searchsorted(x, at, side="right") - 1
    right = np.minimum(left + 1, len(x) - 1)
    width = np.maximum(x[right] - x[left], 1e-300)
    return y[left] + (at - x[left]) / width * (y[right] - y[left])
