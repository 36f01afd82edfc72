"""Scores of predictions: intervals, classes, confusions and calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from train.engine.predictions import Predictions, output_names

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
BINS = 15  # as Guo et al. have them


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's interval of a share, by default of 95 % (Wilson 1927; Brown et al. 2001).

    Unlike the usual one it stays within 0…1, and is sound for few trials and shares near 1.
    """
    if not trials:
        return 0.0, 1.0
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # Which rounding could put on the wrong side of the share where that is 0 or 1.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


class Bin(NamedTuple):
    """Examples whose confidence lies in ``(low, high]``; the means are 0 where there are none."""

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[Bin]:
    """How often answers of each confidence are right, in equal bins of 0…1; NaN is in none."""
    known = ~np.isnan(confidence)
    confidence, right = confidence[known], right[known]
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    sums = [np.bincount(which, values, minlength=bins) for values in (confidence, right)]
    means = [total / np.maximum(counts, 1) for total in sums]
    return [
        Bin(float(low), float(high), int(count), float(sure), float(accurate))
        for low, high, count, sure, accurate in zip(
            edges[:-1], edges[1:], counts, *means, strict=True
        )
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy.

    Over bins weighted by their examples (Guo et al. 2017, arXiv:1706.04599, equation 3).
    """
    total = sum(one.examples for one in bins)
    return sum(one.examples * abs(one.accuracy - one.confidence) for one in bins) / max(1, total)


@dataclass(frozen=True)
class ClassScore:
    """Of one class: its examples, the share of them that is found, with Wilson's interval, and
    the share of right answers among those that say so; None where there are none.
    """

    name: str
    examples: int
    accuracy: float | None
    interval: tuple[float, float] | None
    precision: float | None


class Confusion(NamedTuple):
    """How often ``label`` was said to be ``predicted``."""

    label: str
    predicted: str
    examples: int


@dataclass(frozen=True)
class Scores:
    """Attributes:
    top1, top5: intervals of 95 %; of top-5 None where the evaluation has none.
    ece: the expected calibration error, over ``bins``.
    confidence: the mean.
    classes: in their order.
    confusion: counts, int ``(outputs, outputs)``: labels in rows, predictions in columns.
    confused: the most frequent mistakes.
    mistakes: entries of the predictions, the most confident wrong ones first.
    """

    top1: tuple[float, float]
    top5: tuple[float, float] | None
    ece: float
    confidence: float
    bins: list[Bin]
    classes: list[ClassScore]
    confusion: np.ndarray
    confused: list[Confusion]
    mistakes: np.ndarray


def score(predictions: Predictions, names: list[str], top5: bool, most: int = 24) -> Scores:
    """Scores predictions of the classes ``names``, with at most so many confusions and mistakes."""
    examples, right, size = len(predictions), predictions.right, predictions.outputs
    # Pairs that occur, since of many classes all pairs take gigabytes.
    numbers = predictions.label.astype(np.int64) * size + predictions.predicted
    pairs, counts = np.unique(numbers, return_counts=True)
    rows, columns = np.divmod(pairs, size)
    matrix = np.zeros((size, size), np.int32)
    matrix[rows, columns] = counts
    wrong = rows != columns
    labels = np.bincount(predictions.label, minlength=size)
    said = np.bincount(predictions.predicted, minlength=size)
    hits = matrix.diagonal()
    classes = [
        ClassScore(
            name,
            int(labels[i]),
            hits[i] / labels[i] if labels[i] else None,
            wilson(hits[i], labels[i]) if labels[i] else None,
            hits[i] / said[i] if said[i] else None,
        )
        for i, name in enumerate(names)
    ]
    rows, columns, counts = rows[wrong], columns[wrong], counts[wrong]
    order = np.argsort(-counts, kind="stable")[:most]
    outputs = output_names(names, predictions.outputs)
    confused = [
        Confusion(outputs[i], outputs[j], int(count))
        for i, j, count in zip(rows[order], columns[order], counts[order], strict=True)
    ]
    mistakes = np.flatnonzero(~right)
    sure = np.argsort(-predictions.confidence[mistakes], kind="stable")[:most]
    bins = reliability(predictions.confidence, right)
    return Scores(
        top1=wilson(int(right.sum()), examples),
        top5=wilson(int((predictions.rank < 5).sum()), examples) if top5 else None,
        ece=calibration_error(bins),
        confidence=float(predictions.confidence.mean(dtype=np.float64)),
        bins=bins,
        classes=classes,
        confusion=matrix,
        confused=confused,
        mistakes=mistakes[sure],
    )
