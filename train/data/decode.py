"""From encoded images to uint8 crops, on the host."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
from PIL import Image, ImageOps

# Threads decode different images; OpenCV's own threads inside one would only compete.
cv2.setNumThreads(0)


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decodes JPEG, PNG and the like to uint8 RGB ``(H, W, 3)``, upright.

    Grey images get three equal channels. Raises ValueError for bytes that are no image.
    """
    pixels = None
    if encoded:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels is not None:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    try:  # formats that OpenCV lacks, such as GIF
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:
        raise ValueError(f"{len(encoded)} bytes that are no readable image: {error}") from error


def centre_crop(image: np.ndarray, size: int, resize: int) -> np.ndarray:
    """Resizes the shorter side to ``resize`` and cuts the middle ``size``×``size``."""
    height, width = image.shape[:2]
    scale = resize / min(height, width)
    if scale != 1:
        shape = (max(resize, round(width * scale)), max(resize, round(height * scale)))
        image = _resize(image, shape)
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


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
    return _resize(image[top : top + h, left : left + w], (size, size))


def _resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes to ``(width, height)``: area averages where it shrinks, so nothing aliases."""
    shrinks = shape[0] < image.shape[1] and shape[1] < image.shape[0]
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
