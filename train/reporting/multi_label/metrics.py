"""What an evaluation of images with any number of classes shows, by class and in all."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flax_resnet.calibration import DEFAULT_THRESHOLD
from train.engine.evaluation import Evaluated
from train.reporting import rankings
from train.reporting.cautions import low_recall_lines
from train.reporting.classification_metrics import (
    ReliabilityBin,
    expected_calibration_error,
    f1_interval,
    reliability_bins,
    wilson_interval,
)
from train.runtime.formatting import format_percent, join_names
from train.tasks.bootstrap import Interval, ranking_intervals
from train.tasks.multi_label_metrics import (
    count_labels,
    decide,
    f1_scores,
    rank_classes,
)

MAX_MISTAKES = 24
_MAX_NAMED = 5  # classes in one line


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one class.

    Attributes:
      name: class name.
      examples: images of the class.
      average_precision, auroc: of the ranking by its probability; None if all images or none
        have the class.
      threshold: probability from which on it is predicted, a stored one as it was stored: of
        calibrated probabilities.
      recall, recall_interval: share of its images for which it is predicted, with the 95 % Wilson
        interval; None without examples.
      precision: share of its images among those for which it is predicted; None without any.
      f1: harmonic mean of both; None without examples and predictions.
      precision_interval: 95 % Wilson interval; None without predictions.
      f1_interval: 95 % interval of F1; None without examples and predictions.
      predicted: images for which it is predicted.
      correct: those of them that have it.
    """

    name: str
    examples: int
    average_precision: float | None
    auroc: float | None
    threshold: float
    recall: float | None
    recall_interval: Interval | None
    precision: float | None
    f1: float | None
    precision_interval: Interval | None = None
    f1_interval: Interval | None = None
    predicted: int | None = None
    correct: int | None = None


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """Metrics of an evaluation beside those of its result.

    Attributes:
      classes: metrics per class, in their order.
      intervals: 95 % intervals: by Wilson of ``top1``, by the bootstrap of ``map`` and
        ``auroc_macro`` unless there are too many images.
      bins: bins of the reliability diagram, of all images and classes.
      ece: expected calibration error over ``bins``.
      mistakes: indices into the predictions, the most confident wrong ones first.
      right: whether all classes of an image are right, bool ``(N,)``.
      rankings: returns the ROC and precision–recall curves, see ``train.reporting.rankings``.
    """

    classes: list[LabelMetrics]
    intervals: Mapping[str, Interval]
    bins: list[ReliabilityBin]
    ece: float
    mistakes: np.ndarray
    right: np.ndarray
    rankings: Callable[[], dict[str, Any] | None] = lambda: None


def compute(evaluated: Evaluated) -> MultiLabelEvaluation:
    """Return the metrics of an evaluation."""
    predictions, names = evaluated.predictions, evaluated.loader.source.class_names
    labels = predictions.label > 0
    probabilities = predictions.probabilities[:, : labels.shape[1]]
    predicted = decide(probabilities, predictions.thresholds, len(names))
    bins = reliability_bins(probabilities.ravel(), labels.ravel())
    top1 = wilson_interval(int(predictions.right.sum()), len(predictions))
    return MultiLabelEvaluation(
        _classes(evaluated, labels, predicted),
        {"top1": top1} | ranking_intervals(labels, probabilities),
        bins,
        expected_calibration_error(bins),
        _mistakes(labels, probabilities, predicted),
        (predicted == labels).all(axis=1),
        functools.cache(lambda: _rankings(evaluated)),
    )


def _rankings(evaluated: Evaluated) -> dict[str, Any] | None:
    labels = evaluated.predictions.label > 0
    return rankings.build_rankings(
        evaluated.loader.source.class_names,
        lambda k: labels[:, k],
        evaluated.predictions.probabilities,
        rankings.stored_decisions(evaluated),
        one_class_each=False,
    )


def _classes(evaluated: Evaluated, labels: np.ndarray, predicted: np.ndarray) -> list[LabelMetrics]:
    names = evaluated.loader.source.class_names
    ranked = rank_classes(labels, evaluated.predictions.probabilities)
    counts = count_labels(labels, predicted)
    scores, stored = f1_scores(counts), evaluated.result.get("thresholds", {})
    classes = []
    for k, (examples, chosen, hits) in enumerate(zip(*(c.tolist() for c in counts), strict=True)):
        auroc, average_precision = ranked[k] or (None, None)
        classes.append(
            LabelMetrics(
                name=names[k],
                examples=examples,
                average_precision=average_precision,
                auroc=auroc,
                threshold=stored.get(names[k], DEFAULT_THRESHOLD),
                recall=hits / examples if examples else None,
                recall_interval=wilson_interval(hits, examples) if examples else None,
                precision=hits / chosen if chosen else None,
                f1=float(scores[k]) if examples or chosen else None,
                precision_interval=wilson_interval(hits, chosen) if chosen else None,
                f1_interval=f1_interval(hits, examples, chosen) if examples or chosen else None,
                predicted=chosen,
                correct=hits,
            )
        )
    return classes


def _mistakes(labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the images with a wrong class, those with the most confident error first."""
    error = np.where(predicted != labels, np.abs(probabilities - labels), -1.0).max(axis=1)
    order = np.argsort(-error, kind="stable")[:MAX_MISTAKES]
    return order[error[order] >= 0]


def cautions(result: dict, evaluation: MultiLabelEvaluation) -> list[str]:
    """Return plain lines on an evaluation that is worse than its first number looks."""
    lines = []
    interval = evaluation.intervals.get("map")
    low = result.get("map") if interval is None else interval[0]
    if low is not None and low <= result["map_baseline"]:
        clearly, reason = "", ""
        if interval is not None:
            clearly = "clearly "
            reason = ": its 95 % confidence interval (bootstrap) is {} to {}".format(
                *(format_percent(end, 2) for end in interval)
            )
        lines.append(
            f"mAP {format_percent(result['map'], 2)} is not {clearly}above that of a ranking at"
            f" random, {format_percent(result['map_baseline'], 2)}{reason}"
        )
    missing = [one.name for one in evaluation.classes if one.average_precision is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        lines.append(
            f"{join_names(missing, _MAX_NAMED)} {verb} in no evaluation image or in all, and not in"
            " mAP and macro AUROC"
        )
    advice = "thresholds by class (train.evaluate --calibrate) or pos_weight may help"
    return lines + low_recall_lines(evaluation.classes, advice)
