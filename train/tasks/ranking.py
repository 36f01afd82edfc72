"""Metrics of a ranking by probability: the area under the ROC curve, and average precision.

They equal ``roc_auc_score`` and ``average_precision_score`` of scikit-learn, whose import takes
longer than most evaluations.
"""

import numpy as np


def auroc_and_average_precision(
    scores: np.ndarray, positive: np.ndarray
) -> tuple[float, float] | None:
    """Return the area under the ROC curve and the average precision of scores, in 0…1.

    Examples of equal scores are one point of the curves. None if all or none are positive.

    Args:
      scores: probabilities ``(N,)``.
      positive: bool ``(N,)``.
    """
    order = np.argsort(-scores)
    scores, positive = scores[order], positive[order]
    # The last example of each group of equal scores.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    hits = np.cumsum(positive)[last]
    misses = 1 + last - hits
    if not hits[-1] or not misses[-1]:
        return None
    area = np.sum(np.diff(misses, prepend=0) * (hits + np.append(0, hits[:-1])), dtype=float) / 2
    precision = np.sum(np.diff(hits, prepend=0) * (hits / (1 + last)))
    return float(area / (float(hits[-1]) * float(misses[-1]))), float(precision / hits[-1])


def one_vs_rest(label: np.ndarray, probabilities: np.ndarray) -> list[tuple[float, float] | None]:
    """Return :func:`auroc_and_average_precision` of each class against all others.

    Args:
      label: int ``(N,)``.
      probabilities: ``(N, K)``.
    """
    return [
        auroc_and_average_precision(probabilities[:, k], label == k)
        for k in range(probabilities.shape[1])
    ]
