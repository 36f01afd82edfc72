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


def kappa(counts: ClassCounts) -> float:
    """Return Cohen's kappa of labels and predictions (Cohen 1960); 1 if all are of one class."""
    total = int(counts.labels.sum())
    agreed = int(counts.correct.sum()) / total
    by_chance = float((counts.labels / total) @ (counts.predicted / total))
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0


def mcc(counts: ClassCounts) -> float:
    """Return Matthews' correlation coefficient of several classes (Gorodkin 2004).

    It is 0 if all labels or all predictions are of one class.
    """
    # Integers of Python: products of counts of millions of images may need more than 64 bits.
    labels, predicted, correct = (array.tolist() for array in counts)
    total = sum(labels)
    both = sum(a * b for a, b in zip(labels, predicted, strict=True))
    spread = [total**2 - sum(n * n for n in numbers) for numbers in (labels, predicted)]
    if not all(spread):
        return 0.0
    return (sum(correct) * total - both) / (spread[0] ** 0.5 * spread[1] ** 0.5)


COUNT_METRICS: dict[str, Callable[[ClassCounts], float]] = {
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
    metrics = {name: metric(counts) for name, metric in COUNT_METRICS.items()}
    probabilities = predictions.get("probabilities")
    if probabilities is not None and probabilities.size <= MAX_PROBABILITIES:
        metrics |= ranking_metrics(predictions["label"], probabilities)
    return metrics | {"baseline": majority_share(counts)}
