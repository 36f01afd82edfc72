"""Out-of-fold class probabilities from features, and how unusual features are.

The features are lifted to random Fourier features of a Gaussian kernel (Rahimi and Recht 2007) and
classified by linear discriminant analysis with a shrunken covariance (Ledoit and Wolf 2004). It has
a closed form, so that its time grows linearly with the number of images, and averages over wrong
labels rather than fitting them.
"""

import numpy as np
from scipy.linalg import solve
from scipy.sparse import coo_array
from scipy.special import softmax

FOLDS = 5
_DIMENSIONS = 512
_ROWS = 8192  # that are classified together, to bound memory
_WIDTH = 1.2  # of the kernel, relative to the root mean square of the features
_NEIGHBORS, _MAX_REFERENCE, _BLOCK = 10, 10_000, 512


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int
) -> np.ndarray:
    """Return the probabilities of each image by a model of the images in other folds.

    Args:
      features: ``(N, D)``.
      labels: int ``(N,)``.
      groups: int ``(N,)``; images of a group, such as copies, are in the same fold.
      classes: number of classes K.

    Returns:
      float32 ``(N, K)``; NaN for all if a fold leaves fewer than two classes, and for the images
      of a class that are all in one fold.
    """
    return _out_of_fold(_lift(features), labels, groups, classes)


def _out_of_fold(
    lifted: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int
) -> np.ndarray:
    fold = _folds(labels, groups)
    result = np.full((len(labels), classes), np.nan, np.float32)
    for number in range(FOLDS):
        training = fold != number
        present, numbered = np.unique(labels[training], return_inverse=True)
        if len(present) < 2:
            return np.full_like(result, np.nan)
        weights, bias = _discriminant(lifted[training], numbered)
        held_out = np.flatnonzero(~training)
        result[held_out] = 0
        for start in range(0, len(held_out), _ROWS):
            part = held_out[start : start + _ROWS]
            result[np.ix_(part, present)] = softmax(lifted[part] @ weights + bias, axis=1)
        result[held_out[~np.isin(labels[held_out], present)]] = np.nan
    return result


def out_of_fold_each(features: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return :func:`out_of_fold` of each of several classes against the rest.

    Args:
      features: ``(N, D)``.
      targets: bool ``(N, K)``.
      groups: int ``(N,)``.

    Returns:
      float32 ``(N, K)``; NaN for a class that nearly all images or none have.
    """
    lifted = _lift(features)
    columns = [_out_of_fold(lifted, own.astype(int), groups, 2)[:, 1] for own in targets.T]
    return np.stack(columns, axis=1)


def _discriminant(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights ``(D, K)`` and bias ``(K,)`` of linear discriminant analysis.

    The classes share a covariance. Labels are 0 to K - 1, each at least once.
    """
    from sklearn.covariance import ledoit_wolf

    counts = np.bincount(labels)
    sums = coo_array((np.ones(len(labels), np.float32), (labels, np.arange(len(labels))))).tocsr()
    means = (sums @ features) / counts[:, None]
    covariance, _ = ledoit_wolf(features - means[labels], assume_centered=True)
    weights = solve(covariance, means.T, assume_a="pos")
    return weights, np.log(counts / len(labels)) - (means.T * weights).sum(axis=0) / 2


def unusualness(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return how far each image is from others, 1 for a typical one, float ``(N,)``.

    The distance to the tenth nearest of up to 10,000 images (Ramaswamy et al. 2000; for features of
    networks Sun et al. 2022, arXiv:2204.06507), divided by its median. Copies count once.

    Args:
      features: ``(N, D)``.
      groups: int ``(N,)``; copies have the same number.
    """
    _, first = np.unique(groups, return_index=True)
    chosen = np.random.default_rng(0).permutation(first)[:_MAX_REFERENCE]
    features = features - features.mean(axis=0)
    reference = features[chosen]
    squares = (reference**2).sum(axis=1)
    neighbors = min(_NEIGHBORS, len(chosen) - 1)
    distance = np.zeros(len(features))
    if neighbors < 1:
        return distance
    for start in range(0, len(features), _BLOCK):
        part = features[start : start + _BLOCK]
        square = squares - 2 * part @ reference.T + (part**2).sum(axis=1)[:, None]
        square[groups[start : start + _BLOCK, None] == groups[chosen]] = np.inf
        nearest = np.partition(square, neighbors - 1, axis=1)[:, neighbors - 1]
        distance[start : start + _BLOCK] = np.sqrt(np.maximum(nearest, 0))
    return distance / max(np.median(distance), 1e-12)


def _lift(features: np.ndarray) -> np.ndarray:
    """Return random Fourier features, float32 ``(N, 512)``."""
    rng = np.random.default_rng(0)
    mean = features.mean(axis=0)
    scale = np.sqrt(max(((features - mean) ** 2).sum(axis=1).mean(), 1e-12)) * _WIDTH
    weights = (rng.standard_normal((features.shape[1], _DIMENSIONS)) / scale).astype(np.float32)
    shift = rng.uniform(0, 2 * np.pi, _DIMENSIONS).astype(np.float32)
    return np.cos((features - mean).astype(np.float32) @ weights + shift)


def _folds(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return a fold for each image, stratified by class; a group is in one fold."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(0).random(len(first)), labels[first]))
    fold = np.empty(len(first), int)
    fold[order] = np.arange(len(first)) % FOLDS
    return fold[inverse.ravel()]
