"""Abstention: the accuracy on the images on which a network is most confident."""

from typing import NamedTuple

import numpy as np

MAX_POINTS = 200


class AbstentionPoint(NamedTuple):
    """The images with a confidence of at least ``confidence``.

    Attributes:
      confidence: the lowest confidence among them.
      coverage: their share of all images.
      accuracy: top-1 accuracy on them.
    """

    confidence: float
    coverage: float
    accuracy: float


def abstention_curve(
    confidence: np.ndarray, correct: np.ndarray, max_points: int = MAX_POINTS
) -> list[AbstentionPoint]:
    """Return coverage and accuracy as functions of the confidence that an answer needs.

    This is the risk-coverage curve (El-Yaniv and Wiener 2010) with the accuracy, 1 - risk. Images
    of equal confidence are answered together.

    Args:
      confidence: probabilities of the predicted classes, ``(N,)``; NaN is the lowest.
      correct: whether they are correct, bool ``(N,)``.
      max_points: maximum number of points, evenly spread over the coverage.

    Returns:
      The points in ascending order of coverage; the last one has all images.
    """
    confidence = np.nan_to_num(confidence, nan=0.0)
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    if len(ends) > max_points:
        wanted = np.linspace(ends[0], ends[-1], max_points)
        ends = np.unique(ends[np.searchsorted(ends, wanted)])
    hits = np.cumsum(correct[order])[ends]
    counts = ends + 1
    columns = (ordered[ends], counts / len(ordered), hits / counts)
    return [AbstentionPoint(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def area_under_risk(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the area under the risk-coverage curve (AURC): the mean risk over all coverages.

    Geifman, Uziel and El-Yaniv 2019, arXiv:1805.08206, section 2. Images of equal confidence
    count with their mean risk, whatever their order.
    """
    confidence = np.nan_to_num(confidence, nan=0.0)
    _, group, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, ~np.asarray(correct, bool))
    # Within a group every order is equally likely: its errors come evenly.
    each = np.repeat(wrong / counts, counts)
    return float((np.cumsum(each) / np.arange(1, len(each) + 1)).mean())
