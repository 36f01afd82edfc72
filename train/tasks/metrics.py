"""Metrics of all predictions of a split together, by the counts and the ranking of each class.

Each equals the function of scikit-learn of that name. They are written out because they are a few
lines, and importing scikit-learn takes longer than most evaluations.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from train.tasks.ranking import one_vs_rest

# Most probabilities, images times classes, for metrics of the ranking: during training 16 MiB that
# are sorted within a second, in an evaluation by itself 256 MiB, such as those of ImageNet.
MAX_TRAINING_PROBABILITIES = 2**22
MAX_PROBABILITIES = 2**26
RANKING_METRICS = ("auroc_macro", "average_precision_macro")
CLASSIFICATION_METRICS = ("balanced_accuracy", "f1_macro", "kappa", "mcc", *RANKING_METRICS)


class ClassCounts(NamedTuple):
    """Numbers of examples by class, int64 ``(K,)`` each, or ``(…, K)`` of several samples.

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


def balanced_accuracy(counts: ClassCounts) -> np.ndarray:
    """Return the mean recall of the classes that have examples, ``(…)``."""
    recall = counts.correct / np.maximum(counts.labels, 1)
    return np.mean(recall, axis=-1, where=counts.labels > 0)


def f1_macro(counts: ClassCounts) -> np.ndarray:
    """Return the mean F1 of the classes that are a label or a prediction of some example."""
    total = counts.labels + counts.predicted
    return np.mean(2 * counts.correct / np.maximum(total, 1), axis=-1, where=total > 0)


def kappa(counts: ClassCounts) -> np.ndarray:
    """Return Cohen's kappa of labels and predictions (Cohen 1960); 1 if all are of one class."""
    total = counts.labels.sum(axis=-1)
    both = (counts.labels * counts.predicted).sum(axis=-1)
    by_chance = total**2 - both  # exact in 64 bits for 10⁹ images
    disagreed = (total - counts.correct.sum(axis=-1)) * total
    return 1 - disagreed / np.maximum(by_chance, 1)


def mcc(counts: ClassCounts) -> np.ndarray:
    """Return Matthews' correlation coefficient of several classes (Gorodkin 2004).

    It is 0 if all labels or all predictions are of one class.
    """
    labels, predicted, correct = counts
    total = labels.sum(axis=-1)
    covariance = correct.sum(axis=-1) * total - (labels * predicted).sum(axis=-1)
    spread = [total**2 - (numbers**2).sum(axis=-1) for numbers in (labels, predicted)]
    # Roots before the product, which may need more than 64 bits.
    scale = np.sqrt(spread[0]) * np.sqrt(spread[1])
    return np.where(scale > 0, covariance / np.maximum(scale, 1), 0.0)


COUNT_METRICS: dict[str, Callable[[ClassCounts], np.ndarray]] = {
    "balanced_accuracy": balanced_accuracy,
    "f1_macro": f1_macro,
    "kappa": kappa,
    "mcc": mcc,
}


def ranking_metrics(label: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the means over classes of AUROC and average precision, each class against the rest.

    Classes that all images or none have are left out; without any other the result is empty.
    """
    defined = [both for both in one_vs_rest(label, probabilities) if both is not None]
    if not defined:
        return {}
    return dict(zip(RANKING_METRICS, np.mean(defined, axis=0).tolist(), strict=True))


def classification_metrics(
    predictions: Mapping[str, np.ndarray | None], classes: int
) -> dict[str, float]:
    """Return the metrics of a split by name, and ``baseline``, the share of the largest class.

    Args:
      predictions: arrays with one entry per example: ``label``, ``predicted``, and for the metrics
        of the ranking ``probabilities``.
      classes: number of outputs of the head.
    """
    counts = count_classes(predictions["label"], predictions["predicted"], classes)
    metrics = {name: float(metric(counts)) for name, metric in COUNT_METRICS.items()}
    probabilities = predictions.get("probabilities")
    if probabilities is not None and probabilities.size <= MAX_PROBABILITIES:
        metrics |= ranking_metrics(predictions["label"], probabilities)
    return metrics | {"baseline": majority_share(counts)}
