"""Random-resized crops, on the host."""

import math

import numpy as np

from flax_resnet.preprocessing import Size, height_and_width
from train.data.images import resize_area, resize_bilinear
from train.runtime.config_dict import ConfigDict


def crop_scale(config: ConfigDict, num_images: int) -> tuple[float, float]:
    """Return the range of the area fraction of crops in a run of the configured length.

    Short runs learn more from whole images, long ones from crops
    (benchmarks/studies/folder_recipe.md).

    Args:
      config: the run's configuration.
      num_images: number of training images.
    """
    low, high = config.augment.rrc_scale
    full = config.augment.rrc_full_epochs
    if not full:
        return low, high
    epochs = config.num_epochs
    if config.num_steps:
        epochs = config.num_steps * config.batch_size / max(1, num_images)
    return high - (high - low) * min(1.0, epochs / full), high


def random_resized_crop(
    image: np.ndarray,
    size: Size,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Crop a box of random area and aspect ratio and resize it to ``size``.

    As in the training of GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842, section 6). After ten
    boxes that do not fit, the largest centered box of a valid ratio is used.

    Args:
      image: uint8 or uint16 ``(H, W, C)``.
      size: side, or height and width, of the result.
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


def _resize(image: np.ndarray, size: Size) -> np.ndarray:
    """Resize to ``size``, quickly and without aliasing.

    Bilinear interpolation uses all pixels if it shrinks by a factor of at most two. Before
    that, sides are halved by averaging pairs of pixels, which is exact and as fast. OpenCV's
    INTER_AREA takes longer than decoding the image if the factor is not an integer.
    """
    height, width = height_and_width(size)
    while True:
        down, across = (
            2 if side >= 2 * new else 1
            for side, new in zip(image.shape, (height, width), strict=False)
        )
        if down == across == 1:
            return resize_bilinear(image, width, height)
        rows, columns = image.shape[0] // down, image.shape[1] // across
        image = resize_area(image[: rows * down, : columns * across], columns, rows)
