"""Preprocessing for evaluation: resizing, center crop and normalization.

Resizing needs Pillow, which is imported on first use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Preprocessing:
    """A run's preprocessing of images for evaluation and prediction.

    Attributes:
      resize: length of the shorter side after resizing, in pixels.
      image_size: side of the center crop, in pixels.
      interpolation: ``"bilinear"`` or ``"bicubic"``, both antialiased.
      mean: of red, green and blue in 0…1, to be subtracted.
      std: of red, green and blue in 0…1, to be divided by.
    """

    resize: int
    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def at(self, size: int) -> Preprocessing:
        """Return the preprocessing with another ``image_size`` and the same crop fraction."""
        resize = round(size * self.resize / self.image_size)
        return dataclasses.replace(self, resize=resize, image_size=size)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return the uint8 center crop ``(S, S, 3)`` of a uint8 image ``(H, W, 3)``."""
        return center_crop(image, self.image_size, self.resize, self.interpolation)

    def normalize(self, images: jax.Array) -> jax.Array:
        """Return the network's float32 input for uint8 crops ``(N, S, S, 3)``."""
        return normalize(images, self.mean, self.std)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return ``(image / 255 - mean) / std`` per channel, float32, for uint8 ``(N, H, W, C)``."""
    # As one multiplication and one addition, which the compiler fuses into the next operation.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    shift = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return images.astype(jnp.float32) * scale + shift


def center_crop(
    image: np.ndarray, size: int, resize: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """Resize the shorter side to ``resize`` and return the ``size``×``size`` center crop.

    Equals torchvision's ``Resize(resize)`` and ``CenterCrop(size)`` on a Pillow image, with
    antialiasing, except for rounding: only the crop is resized, so that images with an extreme
    aspect ratio cost no more than others. ``size`` is at most ``resize``.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    # Size after resizing, and the crop's corner in it; rounded as in torchvision.
    new_height, new_width = int(resize * height / shorter), int(resize * width / shorter)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    if (new_height, new_width) == (height, width):
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    down, across = height / new_height, width / new_width
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    box = (*box[:2], min(box[2], width), min(box[3], height))  # rounding may exceed the image
    from PIL import Image

    resampling = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(image).resize((size, size), resampling, box))
