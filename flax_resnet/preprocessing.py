"""From pixels to what a network takes: the evaluation's resizing, cropping and normalising.

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
    """What a run does to an image before its network sees it, other than in training.

    Attributes:
      resize: length of the shorter side after resizing, in pixels.
      image_size: side of the square that is then cut from the middle.
      interpolation: ``"bilinear"`` or ``"bicubic"``, both antialiased.
      mean, std: of red, green, blue in 0…1, subtracted and divided by.
    """

    resize: int
    image_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def at(self, size: int) -> Preprocessing:
        """The same for squares of another size, with the same share of the image in them."""
        resize = round(size * self.resize / self.image_size)
        return dataclasses.replace(self, resize=resize, image_size=size)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The uint8 square ``(S, S, 3)`` of a uint8 image ``(H, W, 3)`` of any size."""
        return center_crop(image, self.image_size, self.resize, self.interpolation)

    def normalize(self, images: jax.Array) -> jax.Array:
        """The network's float32 input of uint8 squares ``(N, S, S, 3)``."""
        return normalize(images, self.mean, self.std)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 ``(N, H, W, C)`` to float32: ``(image / 255 - mean) / std``, channel by channel."""
    # As one multiplication and one addition, which the compiler fuses into what follows.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    shift = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return images.astype(jnp.float32) * scale + shift


def center_crop(
    image: np.ndarray, size: int, resize: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """Resizes the shorter side to ``resize`` and cuts the middle ``size``×``size``.

    As torchvision's ``Resize(resize)`` and ``CenterCrop(size)`` on a Pillow image, with
    antialiasing, but for rounding: only the part that is kept is resized, so that a picture as
    long as a ribbon costs no more than another. ``size`` is at most ``resize``.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    # Sizes after resizing, and where the crop begins there; rounded as torchvision does.
    new_height, new_width = int(resize * height / shorter), int(resize * width / shorter)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    if (new_height, new_width) == (height, width):
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    down, across = height / new_height, width / new_width
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    box = (*box[:2], min(box[2], width), min(box[3], height))  # against rounding
    from PIL import Image

    how = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(image).resize((size, size), how, box))
