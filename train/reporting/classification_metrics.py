"""Classification metrics: confidence intervals, per-class recall, confusions and calibration."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from train.engine.predictions import output_names
from train.tasks.bootstrap import bootstrap_intervals
from train.tasks.metrics import MAX_PROBABILITIES, count_classes
from train.tasks.predictions import Predictions
from train.tasks.ranking import one_vs_rest

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
NUM_BINS = 15  # as in Guo et al. 2017


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927; Brown et al. 2001).

    Unlike the normal approximation it stays within 0…1, and holds for few trials and proportions
    near 1. The default is a confidence of 95 %.
    """
    if not trials:
        return 0.0, 1.0
    share, spread = successes / trials, z * z / trials
    center = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # For a share of 0 or 1 rounding could put an end on the wrong side of it.
    return min(share, max(0.0, center - half)), max(share, min(1.0, center + half))


def f1_interval(correct: int, labels: int, predicted: int) -> tuple[float, float]:
    """Return a 95 % interval of F1, 2 · correct / (labels + predicted).

    F1 is 2 J / (1 + J) of the share J of correct examples among those with the label or the
    prediction. The interval is that of Wilson for J, converted.
    """
    low, high = wilson_interval(correct, labels + predicted - correct)
    return 2 * low / (1 + low), 2 * high / (1 + high)


class ReliabilityBin(NamedTuple):
    """Examples with a confidence in ``(low, high]``; the means are 0 if there are none."""

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS
) -> list[ReliabilityBin]:
    """Return the accuracy per confidence, in equal bins of 0…1; NaN is in no bin."""
    known = ~np.isnan(confidence)
    confidence, correct = confidence[known], correct[known]
    edges = np.linspace(0, 1, num_bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(index, minlength=num_bins)
    sums = [np.bincount(index, values, minlength=num_bins) for values in (confidence, correct)]
    columns = (edges[:-1], edges[1:], counts, *(total / np.maximum(counts, 1) for total in sums))
    return [ReliabilityBin(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the mean gap between confidence and accuracy, over bins weighted by their examples.

    Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    total = sum(one.examples for one in bins)
    return sum(one.examples * abs(one.accuracy - one.confidence) for one in bins) / max(1, total)


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class.

    Attributes:
      name: class name.
      examples: images with this label.
      recall: share of them with a correct prediction; None without examples.
      recall_interval: its 95 % Wilson interval; None without examples.
      precision: share of correct ones among the predictions of this class; None without any.
      precision_interval: its 95 % Wilson interval; None without any.
      f1_interval: see :func:`f1_interval`; None without examples and predictions.
      predicted: images with this prediction.
      f1: harmonic mean of precision and recall; None without examples and predictions.
      auroc: area under the ROC curve against the rest; None without probabilities of all classes,
        or if all or no examples have this label.
      average_precision: of the class against the rest; None if undefined.
    """

    name: str
    examples: int
    recall: float | None
    recall_interval: tuple[float, float] | None
    precision: float | None
    f1: float | None = None
    auroc: float | None = None
    average_precision: float | None = None
    precision_interval: tuple[float, float] | None = None
    f1_interval: tuple[float, float] | None = None
    predicted: int | None = None


class Confusion(NamedTuple):
    """How many examples of class ``label`` were predicted as ``predicted``."""

    label: str
    predicted: str
    examples: int


@dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of an evaluation.

    Attributes:
      intervals: 95 % intervals by metric: Wilson's of top-1, top-5 and the like, percentile
        bootstrap intervals of the metrics of the split, unless these would take long.
      ece: expected calibration error over ``bins``.
      confidence: mean confidence.
      bins: bins of the reliability diagram.
      classes: metrics per class, in their order.
      confusion: counts, int ``(outputs, outputs)``: labels in rows, predictions in columns.
      confused: most frequent confusions.
      mistakes: indices into the predictions, the most confident wrong ones first.
      rankings: returns the ROC and precision–recall curves, see ``train.reporting.rankings``.
    """

    intervals: dict[str, tuple[float, float]]
    ece: float
    confidence: float
    bins: list[ReliabilityBin]
    classes: list[ClassMetrics]
    confusion: np.ndarray
    confused: list[Confusion]
    mistakes: np.ndarray
    rankings: Callable[[], dict[str, Any] | None] = lambda: None


def compute_metrics(
    predictions: Predictions, names: list[str], top_k: Iterable[int] = (), most: int = 24
) -> ClassificationMetrics:
    """Return the metrics of predictions.

    Args:
      predictions: predictions of a split.
      names: class names.
      top_k: numbers k above 1 of which the evaluation has a top-k accuracy.
      most: maximum number of confusions and of mistakes.
    """
    examples, correct, size = len(predictions), predictions.right, predictions.outputs
    # Count the pairs that occur: all pairs of many classes would take gigabytes.
    pair = predictions.label.astype(np.int64) * size + predictions.predicted
    pairs, counts = np.unique(pair, return_counts=True)
    rows, columns = np.divmod(pairs, size)
    matrix = np.zeros((size, size), np.int32)
    matrix[rows, columns] = counts
    labels, predicted, hits = count_classes(predictions.label, predictions.predicted, size)
    probabilities, ranked = predictions.probabilities, [None] * size
    if probabilities is not None and probabilities.size <= MAX_PROBABILITIES:
        ranked = one_vs_rest(predictions.label, probabilities)
    classes = [
        ClassMetrics(
            name,
            int(labels[i]),
            hits[i] / labels[i] if labels[i] else None,
            wilson_interval(hits[i], labels[i]) if labels[i] else None,
            hits[i] / predicted[i] if predicted[i] else None,
            2 * hits[i] / (labels[i] + predicted[i]) if labels[i] + predicted[i] else None,
            *(ranked[i] or (None, None)),
            wilson_interval(hits[i], predicted[i]) if predicted[i] else None,
            f1_interval(hits[i], labels[i], predicted[i]) if labels[i] + predicted[i] else None,
            int(predicted[i]),
        )
        for i, name in enumerate(names)
    ]
    wrong = rows != columns
    rows, columns, counts = rows[wrong], columns[wrong], counts[wrong]
    order = np.argsort(-counts, kind="stable")[:most]
    outputs = output_names(names, size)
    confused = [
        Confusion(outputs[i], outputs[j], int(count))
        for i, j, count in zip(rows[order], columns[order], counts[order], strict=True)
    ]
    mistakes = np.flatnonzero(~correct)
    most_confident = np.argsort(-predictions.confidence[mistakes], kind="stable")[:most]
    bins = reliability_bins(predictions.confidence, correct)
    intervals = {
        f"top{k}": wilson_interval(int((predictions.rank < k).sum()), examples)
        for k in sorted({1, *top_k})
    }
    intervals |= bootstrap_intervals(predictions.label, predictions.predicted, probabilities, size)
    return ClassificationMetrics(
        intervals=intervals,
        ece=expected_calibration_error(bins),
        confidence=float(predictions.confidence.mean(dtype=np.float64)),
        bins=bins,
        classes=classes,
        confusion=matrix,
        confused=confused,
        mistakes=mistakes[most_confident],
    )
