"""Metrics of all predictions of a split together, computed from counts of each class.

Each equals the function of scikit-learn of that name. They are written out because they are a few
lines, and importing scikit-learn takes longer than most evaluations.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class ClassCounts(NamedTuple):
    """Numbers of examples by class, int64 ``(K,)`` each.

    Attributes:
      labels: examples with the label.
      predicted: examples with the prediction.
      correct: examples with both.
    """

    labels: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray


def count_classes(label: np.ndarray, predicted: np.ndarray, classes: int) -> ClassCounts:
    """Count labels and predictions, int ``(N,)`` each, of ``classes`` classes."""
    arrays = label, predicted, label[label == predicted]
    return ClassCounts(*(np.bincount(array, minlength=classes) for array in arrays))


def majority_share(counts: ClassCounts) -> float:
    """Return the top-1 accuracy of always predicting the most frequent label."""
    return float(counts.labels.max() / counts.labels.sum())


def balanced_accuracy(counts: ClassCounts) -> float:
    """Return the mean recall of the classes that have examples."""
    present = counts.labels > 0
    return float(np.mean(counts.correct[present] / counts.labels[present]))


def f1_macro(counts: ClassCounts) -> float:
    """Return the mean F1 of the classes that are a label or a prediction of some example."""
    total = counts.labels + counts.predicted
    return float(np.mean(2 * counts.correct[total > 0] / total[total > 0]))


COUNT_METRICS: dict[str, Callable[[ClassCounts], float]] = {
    "balanced_accuracy": balanced_accuracy,
    "f1_macro": f1_macro,
}


def classification_metrics(
    predictions: Mapping[str, np.ndarray | None], classes: int
) -> dict[str, float]:
    """Return the metrics of a split by name, and ``baseline``, the share of the largest class.

    Args:
      predictions: arrays with one entry per example, in particular ``label`` and ``predicted``.
      classes: number of outputs of the head.
    """
    counts = count_classes(predictions["label"], predictions["predicted"], classes)
    metrics = {name: metric(counts) for name, metric in COUNT_METRICS.items()}
    return metrics | {"baseline": majority_share(counts)}
