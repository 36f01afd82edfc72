"""Random-resized crops, on the host."""

from __future__ import annotations

import math

import numpy as np

from train.data.images import resize_area, resize_bilinear


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Cuts a box of a random share of the area and shape, and resizes it to ``size``×``size``.

    As in GoogLeNet's training (Szegedy et al. 2014, arXiv:1409.4842, section 6): the area's
    share is uniform in ``scale``, the ratio of width to height log-uniform in ``ratio``.
    After ten boxes that do not fit, the largest centred one of a permitted ratio is taken.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            break
    else:
        w = max(1, min(width, round(height * ratio[1])))
        h = max(1, min(height, round(width / ratio[0])))
        top, left = (height - h) // 2, (width - w) // 2
    return _resize(image[top : top + h, left : left + w], size)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to ``size``×``size``, quickly and without aliasing.

    Bilinear interpolation sees all pixels as long as it shrinks to no less than a half;
    before that, sides are halved by means of two, which is exact and as fast. OpenCV's
    INTER_AREA, for other shares than whole ones, takes longer than decoding the image.
    """
    while (by := tuple(2 if side >= 2 * size else 1 for side in image.shape[:2])) != (1, 1):
        height, width = (side // factor for side, factor in zip(image.shape, by, strict=False))
        even = image[: height * by[0], : width * by[1]]
        image = resize_area(even, width, height)
    return resize_bilinear(image, size, size)
