"""What differs between the predictions of two runs: by class and by image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.compare.grouping import grouped
from train.compare.pair.predictions import PairedPredictions
from train.compare.pair.statistics import Pairs, count_pairs, mcnemar, recall_difference
from train.compare.runs import RunSummary
from train.reporting.metric_names import title
from train.tasks.bootstrap import average_precision_differences
from train.tasks.multi_label_metrics import rank_classes

_FOLD = "dataset.fold"


@dataclass(frozen=True)
class ClassDifference:
    """A class in the evaluations of two runs.

    Attributes:
      name: class name.
      examples: images of the class.
      first, second: recall or, with several classes per image, average precision.
      difference: second minus first.
      interval: the 95 % interval of the difference; None if it is unknown.
      lost, gained: images of the class that only the first or the second run has right; None with
        several classes per image.
    """

    name: str
    examples: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    lost: int | None = None
    gained: int | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Differences:
    """What differs between two runs.

    Attributes:
      paired: their predictions.
      pairs: images by which of the runs is right.
      p_value: of McNemar's test.
      classes: by class, the largest differences first.
      lost: indices of the images that only the first run has right, the most confident wrong
        answers of the second one first.
      gained: likewise of those that only the second run has right.
      other_answers: images on which both are wrong with different answers.
      overall: the difference in mAP, with several classes per image.
    """

    paired: PairedPredictions
    pairs: Pairs
    p_value: float
    classes: list[ClassDifference]
    lost: np.ndarray
    gained: np.ndarray
    other_answers: int
    overall: ClassDifference | None = None

    kind = None


def compute_differences(paired: PairedPredictions) -> Differences:
    """Return what differs between the predictions of two runs."""
    first, second = paired.first, paired.second
    right = first.right, second.right
    pairs = count_pairs(*right)
    if paired.several_labels:
        classes, overall = _of_labels(paired)
    else:
        classes, overall = _of_recall(paired), None
    classes.sort(key=lambda one: (-abs(one.difference), -one.examples))
    lost, gained = np.flatnonzero(right[0] & ~right[1]), np.flatnonzero(right[1] & ~right[0])
    if not paired.several_labels:  # otherwise there is no single answer
        lost = lost[np.argsort(-second.confidence[lost], kind="stable")]
        gained = gained[np.argsort(-first.confidence[gained], kind="stable")]
    unequal = (first.predicted != second.predicted).reshape(len(paired), -1).any(axis=1)
    other = int((unequal & ~right[0] & ~right[1]).sum())
    return Differences(paired, pairs, mcnemar(pairs), classes, lost, gained, other, overall)


def _of_recall(paired: PairedPredictions) -> list[ClassDifference]:
    """Return the differences in recall of all classes with images."""
    label = paired.first.label
    right = paired.first.right, paired.second.right
    total = len(paired.class_names)
    examples = np.bincount(label, minlength=total).tolist()
    counts = [
        np.bincount(label[where], minlength=total).tolist()
        for where in (right[0], right[1], right[0] & ~right[1], right[1] & ~right[0])
    ]
    classes = []
    for name, n, hits, new_hits, lost, gained in zip(
        paired.class_names, examples, *counts, strict=True
    ):
        if n:
            difference, low, high = recall_difference(gained, lost, n)
            shares = hits / n, new_hits / n
            one = ClassDifference(name, n, *shares, difference, (low, high), lost, gained)
            classes.append(one)
    return classes


def _of_labels(
    paired: PairedPredictions,
) -> tuple[list[ClassDifference], ClassDifference | None]:
    """Return the differences in average precision of all classes that have one, and in mAP."""
    label = paired.first.label > 0
    scores = paired.first.confidence, paired.second.confidence
    ranked = [rank_classes(label, values) for values in scores]
    by_class, of_mean = average_precision_differences(label, *scores) or (None, None)
    classes = []
    for k, name in enumerate(paired.class_names):
        if ranked[0][k] is not None:
            (_, a), (_, b) = ranked[0][k], ranked[1][k]
            interval = by_class and by_class[k]
            classes.append(ClassDifference(name, int(label[:, k].sum()), a, b, b - a, interval))
    if not classes:
        return [], None
    a, b = (float(np.mean([getattr(c, n) for c in classes])) for n in ("first", "second"))
    return classes, ClassDifference(title("map"), len(paired), a, b, b - a, of_mean)


def choose_pair(
    runs: Sequence[RunSummary], cohort: Sequence[RunSummary]
) -> tuple[RunSummary, RunSummary] | None:
    """Return the two runs of a cohort whose predictions are compared; None for a single one.

    Two runs are compared in their order. Of more, the second of the pair is the best run of the
    cohort, the first the best run of another configuration, or the second best if all differ only
    in the seed. Runs on other folds have other images.

    Args:
      runs: all runs.
      cohort: those with the same metric and images, the best first.
    """
    if len(runs) == 2:  # also with different metrics
        cohort = runs
    fold = cohort[0].values.get(_FOLD)
    same = [run for run in cohort if run.values.get(_FOLD) == fold]
    if len(same) < 2:
        return None
    if len(same) == 2:
        first, second = same
        return (first, second) if runs.index(first) < runs.index(second) else (second, first)
    complete = [run for run in same if run.is_complete]
    same = complete if len(complete) > 1 else same
    leaders = [group[0] for group in grouped(same)]
    return (leaders[1:] or same[1:])[0], same[0]
