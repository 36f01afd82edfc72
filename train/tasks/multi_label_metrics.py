"""Metrics of images with any number of classes, over all predictions of a split together.

Each equals the function of scikit-learn: AUROC and average precision on the classes that some, but
not all images have, macro F1 on those that are a label or a prediction of some image. See
``train/tasks/metrics.py`` for why they are written out.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flax_resnet.calibration import DEFAULT_THRESHOLD
from train.tasks.ranking import auroc_and_average_precision

MULTI_LABEL_METRICS = ("map", "auroc_macro", "f1_macro", "f1_micro", "exact_match")


class LabelCounts(NamedTuple):
    """Numbers of images by class, int64 ``(K,)`` each.

    Attributes:
      labels: images of the class.
      predicted: images for which it is predicted.
      correct: images with both.
    """

    labels: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray


def decide(probabilities: np.ndarray, thresholds: np.ndarray | None, classes: int) -> np.ndarray:
    """Return the predicted classes, bool ``(N, K)``: those that reach their threshold.

    Args:
      probabilities: ``(N, outputs)``.
      thresholds: ``(K,)``; None: ``DEFAULT_THRESHOLD`` for all.
      classes: K, at most the number of outputs.
    """
    return probabilities[:, :classes] >= (DEFAULT_THRESHOLD if thresholds is None else thresholds)


def count_labels(labels: np.ndarray, predicted: np.ndarray) -> LabelCounts:
    """Count labels and predictions ``(N, K)`` each, of zeros and ones."""
    arrays = labels, predicted, labels & predicted
    return LabelCounts(*(array.sum(axis=0, dtype=np.int64) for array in arrays))


def f1_scores(counts: LabelCounts) -> np.ndarray:
    """Return the F1 of each class ``(K,)``; NaN of one that no image has and none is predicted."""
    total = counts.labels + counts.predicted
    return np.where(total, 2 * counts.correct / np.maximum(total, 1), np.nan)


def f1_micro(counts: LabelCounts) -> float:
    """Return the F1 of all classes counted together; 0 without labels and predictions."""
    total = int(counts.labels.sum() + counts.predicted.sum())
    return 2 * int(counts.correct.sum()) / max(1, total)


def rank_classes(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[float, float] | None]:
    """Return AUROC and average precision of each class; None if all images or none have it.

    Args:
      labels: bool ``(N, K)``.
      probabilities: ``(N, outputs)``.
    """
    return [
        auroc_and_average_precision(probabilities[:, k], labels[:, k])
        for k in range(labels.shape[1])
    ]


def random_average_precision(positives: np.ndarray, images: int) -> np.ndarray:
    """Return the expected average precision of classes if the images are ranked at random.

    It is the share of positive images for many of them, and well above for few (Bestgen 2015): a
    positive image at place n raises the precision there by itself.

    Args:
      positives: numbers of images of the classes ``(K,)``.
      images: number of all images, at least 2.
    """
    harmonic = (1 / np.arange(1, images + 1)).sum()
    return (harmonic + (images - harmonic) * (positives - 1) / (images - 1)) / images


def multi_label_metrics(
    predictions: Mapping[str, np.ndarray | None], outputs: int
) -> dict[str, float]:
    """Return the metrics of a split by name, and two baselines.

    ``baseline`` is the top-1 accuracy of always predicting the most frequent class,
    ``map_baseline`` the mean average precision of a ranking at random, of the ranked classes.

    Args:
      predictions: arrays with one entry per example: ``label`` ``(N, K)`` and ``probabilities``
        ``(N, outputs)``; and perhaps ``thresholds`` ``(K,)``.
      outputs: number of outputs of the head.
    """
    labels = predictions["label"] > 0
    shares = labels.mean(axis=0, dtype=np.float64)
    baseline = {"baseline": float(shares.max())}
    probabilities = predictions["probabilities"]
    ranked, metrics = rank_classes(labels, probabilities), {}
    if defined := [both for both in ranked if both is not None]:
        auroc, average_precision = np.mean(defined, axis=0).tolist()
        metrics = {"map": average_precision, "auroc_macro": auroc}
        positives = labels.sum(axis=0)[[both is not None for both in ranked]]
        baseline["map_baseline"] = float(random_average_precision(positives, len(labels)).mean())
    predicted = decide(probabilities, predictions.get("thresholds"), labels.shape[1])
    counts = count_labels(labels, predicted)
    scores = f1_scores(counts)
    if not np.isnan(scores).all():
        metrics["f1_macro"] = float(np.nanmean(scores))
    metrics["f1_micro"] = f1_micro(counts)
    metrics["exact_match"] = float((predicted == labels).all(axis=1).mean())
    return metrics | baseline
