"""Bootstrap intervals of metrics of all predictions of a split together.

Percentile intervals of 95 % (Efron 1979; Efron and Tibshirani 1993, section 13.3) over resamples of
the images with replacement, of a fixed seed. Metrics of counts need only how often each pair of
label and prediction occurs in a resample, which is multinomial.

An interval that does not contain the metric itself is left out: with a few images per class, the
copies in resamples raise average precision by more than its spread. So is one without any width:
if all images are right, so are those of each resample, which says nothing about other images.
"""

import itertools
import warnings
from collections.abc import Mapping

import numpy as np

from train.tasks.metrics import COUNT_METRICS, RANKING_METRICS, ClassCounts

RESAMPLES = 1000
SEED = 0
_QUANTILES = (0.025, 0.975)
# Limits that keep each half within about two seconds.
MAX_PAIRS = 2**14  # different pairs of label and prediction
MAX_RESAMPLED = 2**17  # images times classes
CHUNK = 50  # resamples at once, to save memory
_ROUNDING = 1e-9  # of metrics

Interval = tuple[float, float]


def bootstrap_intervals(
    label: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None, outputs: int
) -> dict[str, Interval]:
    """Return the 95 % intervals by the name of the metric, as in ``classification_metrics``.

    Metrics are left out for more than ``MAX_PAIRS`` different pairs or ``MAX_RESAMPLED``.

    Args:
      label: int ``(N,)``.
      predicted: int ``(N,)``.
      probabilities: ``(N, outputs)``, or None.
      outputs: number of outputs of the head.
    """
    samples: dict[str, np.ndarray] = {}
    pairs, frequency = np.unique(label.astype(np.int64) * outputs + predicted, return_counts=True)
    if len(pairs) <= MAX_PAIRS:
        samples |= _resample_counts(pairs, frequency, outputs)
    if probabilities is not None and probabilities.size <= MAX_RESAMPLED:
        positive = label[:, None] == np.arange(outputs)
        ranking = _resample_ranking(positive, probabilities)
        samples |= dict(zip(RANKING_METRICS, ranking, strict=True))
    return intervals_of(samples)


def ranking_intervals(positive: np.ndarray, probabilities: np.ndarray) -> dict[str, Interval]:
    """Return the 95 % intervals of ``auroc_macro`` and ``map``; empty above ``MAX_RESAMPLED``.

    Args:
      positive: whether images are of each class, bool ``(N, K)``.
      probabilities: ``(N, K)``.
    """
    if probabilities.size > MAX_RESAMPLED:
        return {}
    ranking = _resample_ranking(positive, probabilities)
    return intervals_of(dict(zip(("auroc_macro", "map"), ranking, strict=True)))


def average_precision_differences(
    positive: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[list[Interval | None], Interval | None] | None:
    """Return the 95 % intervals of the second average precision minus the first.

    Both are of the same resamples of the images: by class, None if all or no images are of it, and
    of the mean over classes, mAP.

    Args:
      positive: whether images are of each class, bool ``(N, K)``.
      first: probabilities of one network ``(N, K)``.
      second: those of the other one.

    Returns:
      None for more than ``MAX_RESAMPLED`` probabilities.
    """
    if positive.size > MAX_RESAMPLED:
        return None
    rng, (count, classes) = np.random.default_rng(SEED), positive.shape
    ranked = [[_Ranked(p[:, k], positive[:, k]) for k in range(classes)] for p in (first, second)]
    parts = []
    for _ in range(0, RESAMPLES, CHUNK):
        drawn = rng.integers(0, count, (CHUNK, count))
        weights = np.array([np.bincount(row, minlength=count) for row in drawn], np.int32)
        parts.append(
            [
                b.resampled(weights)[1] - a.resampled(weights)[1]
                if a.positives.size
                else np.full(CHUNK, np.nan)
                for a, b in zip(*ranked, strict=True)
            ]
        )
    samples = np.concatenate(parts, axis=1)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of no class
        samples = np.concatenate([samples, np.nanmean(samples, axis=0, keepdims=True)])
    *by_class, overall = (
        None if np.isnan(values).all() else tuple(np.nanquantile(values, _QUANTILES).tolist())
        for values in samples
    )
    return by_class, overall


def intervals_of(samples: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Return the intervals that have a width and contain the metric.

    The first sample is the images themselves.
    """
    intervals = {
        name: tuple(np.nanquantile(values[1:], _QUANTILES).tolist())
        for name, values in samples.items()
        if not np.isnan(values[1:]).all()
    }
    return {
        name: (low, high)
        for name, (low, high) in intervals.items()
        if low + _ROUNDING < high and low - _ROUNDING <= samples[name][0] <= high + _ROUNDING
    }


def _resample_counts(
    pairs: np.ndarray, frequency: np.ndarray, outputs: int
) -> dict[str, np.ndarray]:
    """Return the metrics of counts of the images themselves and of all resamples, by name.

    Args:
      pairs: different values of ``label · outputs + predicted``, sorted.
      frequency: how often each occurs.
      outputs: number of outputs of the head.
    """
    rng, total = np.random.default_rng(SEED), frequency.sum()
    rows, columns = np.divmod(pairs, outputs)
    by_column = np.argsort(columns, kind="stable")
    hits = rows == columns

    def by_class(drawn: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the sums of ``drawn`` over equal ``classes``, which are sorted."""
        sums = np.zeros((len(drawn), outputs), np.int64)
        present, starts = np.unique(classes, return_index=True)
        sums[:, present] = np.add.reduceat(drawn, starts, axis=1) if len(present) else 0
        return sums

    parts: list[dict[str, np.ndarray]] = []
    resamples = (
        rng.multinomial(total, frequency / total, size=CHUNK) for _ in range(0, RESAMPLES, CHUNK)
    )
    for drawn in itertools.chain([frequency[None]], resamples):
        counts = ClassCounts(
            labels=by_class(drawn, rows),
            predicted=by_class(drawn[:, by_column], columns[by_column]),
            correct=by_class(drawn[:, hits], rows[hits]),
        )
        parts.append({name: metric(counts) for name, metric in COUNT_METRICS.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in COUNT_METRICS}


def _resample_ranking(positive: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the means over classes of AUROC and average precision, ``(2, 1 + resamples)``.

    The first are those of the images themselves. They are NaN for resamples in which all or no
    images are of each class.
    """
    rng, (count, classes) = np.random.default_rng(SEED), probabilities.shape
    ranked = [_Ranked(probabilities[:, k], positive[:, k]) for k in range(classes)]
    parts = []
    resamples = (
        np.array([np.bincount(row, minlength=count) for row in rng.integers(0, count, shape)])
        for shape in [(CHUNK, count)] * (RESAMPLES // CHUNK)
    )
    for weights in itertools.chain([np.ones((1, count), np.int64)], resamples):
        by_class = [one.resampled(weights.astype(np.int32)) for one in ranked if one.positives.size]
        by_class = by_class or [np.full((2, len(weights)), np.nan)]
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of no class
            parts.append(np.nanmean(by_class, axis=0))
    return np.concatenate(parts, axis=1)


class _Ranked:
    """Images in the order of their scores for a class, for fast metrics of resamples.

    Attributes:
      positives: places of the images of the class in this order.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray):
        self._order = np.argsort(-scores, kind="stable")
        scores, positive = scores[self._order], positive[self._order]
        self.positives = np.flatnonzero(positive)
        # Images of equal scores are one point of the curves: a group of places from start to stop.
        first = np.append(True, scores[1:] != scores[:-1])
        starts, group = np.flatnonzero(first), np.cumsum(first) - 1
        groups, counts = np.unique(group[self.positives], return_counts=True)
        self._last = np.cumsum(counts) - 1  # the last positive of each group with one
        self._start, self._stop = starts[groups], np.append(starts[1:], len(scores))[groups]

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """Return AUROC and average precision ``(2, R)``; NaN where all or no images are positive.

        Args:
          weights: how often each image is in a resample, ``(R, N)``.
        """
        weights = weights[:, self._order]
        total = np.zeros((len(weights), weights.shape[1] + 1), np.int32)
        np.cumsum(weights, axis=1, out=total[:, 1:])
        hits = np.cumsum(weights[:, self.positives], axis=1)[:, self._last]
        all_hits = hits[:, -1]
        all_misses = total[:, -1] - all_hits
        hits_before = np.pad(hits[:, :-1], ((0, 0), (1, 0)))
        new_hits, above = hits - hits_before, total[:, self._stop]
        misses = (above - hits + total[:, self._start] - hits_before) / 2  # of a group: half
        area = (new_hits * (all_misses[:, None] - misses)).sum(axis=1)
        precision = (new_hits * (hits / np.maximum(above, 1))).sum(axis=1)
        metrics = area / np.maximum(all_hits * all_misses, 1), precision / np.maximum(all_hits, 1)
        return np.where((all_hits > 0) & (all_misses > 0), metrics, np.nan)
