"""Bootstrap intervals of the metrics of segmentation, over resamples of the images."""

import itertools
from collections.abc import Iterator

import numpy as np

from train.tasks.bootstrap import CHUNK, RESAMPLES, SEED, Interval, intervals_of
from train.tasks.segmentation_metrics import (
    SEGMENTATION_METRICS,
    class_iou,
    known_mean,
    pixel_metrics,
)

# Limits that keep it within about two seconds.
MAX_IMAGES = 2**16
MAX_COUNTED = 2**20  # images times classes


def pixel_intervals(counts: np.ndarray) -> dict[str, Interval]:
    """Return the 95 % intervals of ``SEGMENTATION_METRICS`` by name, as in :mod:`~.bootstrap`.

    Images are resampled, not pixels: those of one image are not independent. It is empty for a
    single image, and above ``MAX_IMAGES`` or ``MAX_COUNTED``.

    Args:
      counts: pixels of each image by class ``(N, 3, K)``: with the label, with the prediction, with
        both.
    """
    parts = [pixel_metrics(*sums) for sums in _resampled_sums(counts)]
    if not parts:
        return {}
    return intervals_of(
        {name: np.concatenate([part[name] for part in parts]) for name in SEGMENTATION_METRICS}
    )


def iou_difference_intervals(
    first: np.ndarray, second: np.ndarray
) -> tuple[list[Interval | None], Interval | None]:
    """Return the 95 % intervals of the second IoU minus the first: by class, and of mIoU.

    Both are of the same resamples of the images. One without a width is None, and so are all above
    the limits of :func:`pixel_intervals`.

    Args:
      first: counts of one network ``(N, 3, K)``, as of :func:`pixel_intervals`.
      second: those of the other one, for the same images in the same order.
    """
    classes = first.shape[2]
    both = zip(_resampled_sums(first), _resampled_sums(second), strict=True)
    parts = [(class_iou(*a), class_iou(*b)) for a, b in both]
    if not parts:
        return [None] * classes, None
    a, b = (np.concatenate(part) for part in zip(*parts, strict=True))
    samples: dict[str, np.ndarray] = {str(k): b[:, k] - a[:, k] for k in range(classes)}
    samples["miou"] = known_mean(b) - known_mean(a)
    known = intervals_of({k: v for k, v in samples.items() if not np.isnan(v[0])})
    return [known.get(str(k)) for k in range(classes)], known.get("miou")


def _resampled_sums(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield summed counts ``(3, R, K)`` of the images themselves, and of resamples of them.

    The resamples depend only on the number of images. There are none above the limits.
    """
    images, _, classes = counts.shape
    if not 1 < images <= MAX_IMAGES or images * classes > MAX_COUNTED:
        return
    rng, flat = np.random.default_rng(SEED), counts.reshape(images, -1).astype(np.float64)
    resamples = (
        np.array([np.bincount(row, minlength=images) for row in rng.integers(0, images, shape)])
        for shape in [(CHUNK, images)] * (RESAMPLES // CHUNK)
    )
    for weights in itertools.chain([np.ones((1, images))], resamples):
        # Exact: numbers of pixels are far below 2**53.
        sums = (weights.astype(np.float64) @ flat).reshape(-1, 3, classes)
        yield np.moveaxis(sums, 1, 0)
