"""Likely label errors: confident learning (Northcutt et al. 2021, arXiv:1911.00068).

The number of errors is that of the paper's estimate of the joint distribution of given and true
labels (section 3.1); the images with the lowest probability of their given label are listed. That
estimate takes all confident mistakes of the probabilities for errors of the labels, so that
:func:`expected_errors` limits it for weak ones.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

# Of out-of-fold probabilities above always the most frequent answer, from 0 to 1. Below this,
# their doubts say more about themselves than about the labels.
MIN_SKILL = 0.5
MIN_GIVEN_SKILL = 0.1  # of given predictions, whose user may know that many labels are wrong
# Above this, disagreement with the labels is rare, and mostly their fault.
STRONG_SKILL = 0.85
_TOLERANCE = 1e-6  # of float32 probabilities at a threshold
_TEMPERATURES = np.geomspace(0.5, 20, 24)
_LIKELY = 0.5  # log likelihood below the highest one within a standard error of a parameter
_MAX_PROBABILITIES = 2**21  # images times classes in an estimate, which takes less than a second


def skill(right: float, majority: float) -> float:
    """Return how much better than always the most frequent answer answers are; 1 is perfect.

    Args:
      right: share of right ones.
      majority: share of images of the most frequent answer.
    """
    return (right - majority) / max(1 - majority, 1e-12)


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the estimated numbers of images by given and true label, float ``(K, K)``.

    An image counts for the class that is at least as probable as it is on average among images of
    that label, the most probable one of several. The counts of each given label are scaled to its
    number of images (equations 1 and 2).

    Args:
      labels: given labels, int ``(N,)``.
      probabilities: out-of-sample probabilities ``(N, K)``.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, own, minlength=classes)
    thresholds = np.where(counts, sums / np.maximum(counts, 1), np.inf)
    confident = probabilities >= thresholds - _TOLERANCE
    counted = confident.any(axis=1)
    true = np.where(confident, probabilities, -1).argmax(axis=1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], true[counted]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint / joint.sum(axis=1, keepdims=True) * counts[:, None]


def find_label_set_errors(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the likely errors of images with several classes, bool ``(N, K)``.

    Each class is a problem of two classes, itself and the rest (Thyagarajan et al. 2022,
    arXiv:2211.13895, section 2).

    Args:
      targets: given labels, bool ``(N, K)``.
      probabilities: out-of-sample probabilities ``(N, K)``; NaN for unknown ones, without errors.
    """
    doubtful = np.zeros(targets.shape, bool)
    for k in range(targets.shape[1]):
        known = np.flatnonzero(~np.isnan(probabilities[:, k]))
        if len(known):
            own = probabilities[known, k]
            both = np.stack([1 - own, own], axis=1)
            errors = find_label_errors(targets[known, k].astype(int), both)
            doubtful[known[errors], k] = True
    return doubtful


def expected_errors(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected number of wrong labels, some mistakes being those of the probabilities.

    The given label is sampled from the probabilities with a temperature or, with a rate, from the
    other classes at random. Wrong probabilities lead to a temperature, wrong labels to a rate. Of
    the temperatures and rates within a standard error of the highest likelihood those with the
    fewest errors are taken, since weak probabilities hardly distinguish the two.

    Args:
      labels: given labels, int ``(N,)``.
      probabilities: out-of-sample probabilities ``(N, K)``.
    """
    images, classes = probabilities.shape
    chosen = np.arange(images)
    if images * classes > _MAX_PROBABILITIES:
        count = _MAX_PROBABILITIES // classes + 1
        chosen = np.random.default_rng(0).choice(images, min(count, images), replace=False)
    logits = np.log(np.maximum(probabilities[chosen], 1e-12).astype(np.float64))
    own = logits[np.arange(len(chosen)), labels[chosen]]
    fits = []
    for temperature in _TEMPERATURES:
        right = np.exp(own / temperature - logsumexp(logits / temperature, axis=1))
        other = (1 - right) / (classes - 1)

        def nll(rate: float, right=right, other=other) -> float:
            return -np.log(np.maximum((1 - rate) * right + rate * other, 1e-300)).mean()

        best = minimize_scalar(nll, bounds=(0, 0.5), method="bounded")
        wrong = best.x * other
        expected = (wrong / (wrong + (1 - best.x) * right + 1e-300)).sum()
        fits.append((best.fun, expected))
    least = min(fits)[0] + _LIKELY / len(chosen)
    errors = min(expected for value, expected in fits if value <= least)
    return float(errors * images / len(chosen))


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of likely label errors, the most likely ones first.

    Their most probable class is another than the given one.

    Args:
      labels: given labels, int ``(N,)``.
      probabilities: out-of-sample probabilities ``(N, K)``.
    """
    joint = confident_joint(labels, probabilities)
    number = round(joint.sum() - joint.trace())
    right = probabilities.argmax(axis=1) == labels
    majority = np.bincount(labels).max() / len(labels)
    if number and skill(right.mean(), majority) < STRONG_SKILL:
        number = min(number, round(expected_errors(labels, probabilities)))
    own = probabilities[np.arange(len(labels)), labels]
    others = np.flatnonzero(~right)
    return others[np.argsort(own[others], kind="stable")][:number]
