"""Random-resized crops, on the host."""

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
    """Crop a box of random area and aspect ratio and resize it to ``size``×``size``.

    As in the training of GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842, section 6). After ten
    boxes that do not fit, the largest centered box of a valid ratio is used.

    Args:
      image: uint8 ``(H, W, 3)``.
      size: height and width of the result.
      rng: source of the random numbers.
      scale: range of the area fraction, sampled uniformly.
      ratio: range of the aspect ratio, width to height, sampled log-uniformly.
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
    """Resize to ``size``×``size``, quickly and without aliasing.

    Bilinear interpolation uses all pixels if it shrinks by a factor of at most two. Before
    that, sides are halved by averaging pairs of pixels, which is exact and as fast. OpenCV's
    INTER_AREA takes longer than decoding the image if the factor is not an integer.
    """
    while (by := tuple(2 if side >= 2 * size else 1 for side in image.shape[:2])) != (1, 1):
        height, width = (side // factor for side, factor in zip(image.shape, by, strict=False))
        even = image[: height * by[0], : width * by[1]]
        image = resize_area(even, width, height)
    return resize_bilinear(image, size, size)
