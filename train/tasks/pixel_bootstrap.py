"""Bootstrap intervals of the metrics of segmentation, over resamples of the images."""

import itertools

import numpy as np

from train.tasks.bootstrap import CHUNK, RESAMPLES, SEED, Interval, intervals_of
from train.tasks.segmentation_metrics import SEGMENTATION_METRICS, pixel_metrics

# Limits that keep it within about two seconds.
MAX_IMAGES = 2**17
MAX_COUNTED = 2**21  # images times classes


def pixel_intervals(counts: np.ndarray) -> dict[str, Interval]:
    """Return the 95 % intervals of ``SEGMENTATION_METRICS`` by name, as in :mod:`~.bootstrap`.

    Images are resampled, not pixels: those of one image are not independent. It is empty for a
    single image, and above ``MAX_IMAGES`` or ``MAX_COUNTED``.

    Args:
      counts: pixels of each image by class ``(N, 3, K)``: with the label, with the prediction, with
        both.
    """
    images, _, classes = counts.shape
    if not 1 < images <= MAX_IMAGES or images * classes > MAX_COUNTED:
        return {}
    rng, flat = np.random.default_rng(SEED), counts.reshape(images, -1).astype(np.float64)
    resamples = (
        np.array([np.bincount(row, minlength=images) for row in rng.integers(0, images, shape)])
        for shape in [(CHUNK, images)] * (RESAMPLES // CHUNK)
    )
    parts = []
    for weights in itertools.chain([np.ones((1, images))], resamples):
        # Exact: numbers of pixels are far below 2**53.
        sums = (weights.astype(np.float64) @ flat).reshape(-1, 3, classes)
        parts.append(pixel_metrics(*np.moveaxis(sums, 1, 0)))
    return intervals_of(
        {name: np.concatenate([part[name] for part in parts]) for name in SEGMENTATION_METRICS}
    )
