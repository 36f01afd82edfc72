"""Preprocessing for evaluation: resizing, center crop and normalization.

Resizing needs Pillow, which is imported on first use.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.images.pixels import PixelFormat

Size = int | tuple[int, int]  # a side of a square, or (height, width)


@dataclass(frozen=True)
class Preprocessing:
    """A run's preprocessing of images for evaluation and prediction.

    ``S`` stands for ``height, width`` and ``C`` for ``channels`` in other documentation.

    Attributes:
      resize: the smallest size that covers the image after resizing: the length of the shorter
        side, or for crops that are not square ``(height, width)``; in pixels.
      image_size: size of the center crop in pixels: a side, or ``(height, width)``.
      interpolation: ``"bilinear"`` or ``"bicubic"``, both antialiased.
      mean: of each channel in 0…1, to be subtracted.
      std: of each channel in 0…1, to be divided by.
      bits: bits of a value, 8 or 16; 1 is the largest.
    """

    resize: Size
    image_size: Size
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bits: int = 8

    @property
    def pixels(self) -> PixelFormat:
        """Channels and bits."""
        return PixelFormat(len(self.mean), self.bits)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, channels)`` of the crops."""
        return *height_and_width(self.image_size), len(self.mean)

    @property
    def shorter_side(self) -> int:
        """The shorter side of the crops, in pixels."""
        return min(height_and_width(self.image_size))

    @property
    def nbytes(self) -> int:
        """Memory of a crop, in bytes."""
        return math.prod(self.shape) * self.pixels.dtype.itemsize

    @property
    def fill(self) -> tuple[int, ...]:
        """Value of each channel that is nearest to the mean, which is 0 in the network's input."""
        largest = self.pixels.max_value
        return tuple(min(largest, max(0, round(largest * mean))) for mean in self.mean)

    def at(self, size: int) -> Preprocessing:
        """Return the preprocessing of smaller or larger crops with the same crop fraction.

        Args:
          size: the new shorter side of the crops in pixels; their aspect ratio is kept.
        """
        resize, image_size = (
            scale_size(sides, size, self.shorter_side) for sides in (self.resize, self.image_size)
        )
        return dataclasses.replace(self, resize=resize, image_size=image_size)

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return the center crop, of :attr:`shape`, of an image ``(H, W, C)`` of the same type."""
        return center_crop(image, self.image_size, self.resize, self.interpolation)

    def normalize(self, images: jax.Array) -> jax.Array:
        """Return the network's float32 input for crops ``(N, *shape)``."""
        return normalize(images, self.mean, self.std)


def to_viewable(images: np.ndarray) -> np.ndarray:
    """Return images ``(…, H, W, C)`` as uint8 RGB, to be looked at.

    Of more than three channels, the first three are shown as red, green and blue; of fewer, the
    first as gray. Values of 16 bits are divided by the largest of each image.
    """
    channels = images.shape[-1]
    images = images[..., :3] if channels >= 3 else np.repeat(images[..., :1], 3, axis=-1)
    if images.dtype == np.uint8:
        return images
    largest = np.maximum(images.max(axis=(-3, -2, -1), keepdims=True), 1)
    return (images.astype(np.uint32) * 255 // largest).astype(np.uint8)


def height_and_width(size: Size) -> tuple[int, int]:
    """Return the height and width of a size."""
    return (size, size) if isinstance(size, int) else tuple(size)


def scale_size(size: Size, numerator: float, denominator: float) -> Size:
    """Return a size times ``numerator / denominator``, rounded."""
    if isinstance(size, int):
        return round(numerator * size / denominator)
    return tuple(round(numerator * side / denominator) for side in size)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return ``(image / max - mean) / std`` per channel, float32, for images ``(N, H, W, C)``.

    ``max`` is 65,535 for uint16, and 255 for other types.
    """
    largest = 65535 if images.dtype == jnp.uint16 else 255
    # As one multiplication and one addition, which the compiler fuses into the next operation.
    scale = 1 / (largest * jnp.asarray(std, jnp.float32))
    shift = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return images.astype(jnp.float32) * scale + shift


def center_crop(
    image: np.ndarray, size: Size, resize: Size, interpolation: str = "bilinear"
) -> np.ndarray:
    """Resize an image to cover ``resize`` and return its center crop of ``size``.

    If both are one number, this equals torchvision's ``Resize(resize)`` and ``CenterCrop(size)``
    on a Pillow image, with antialiasing, except for rounding: only the crop is resized, so that
    images with an extreme aspect ratio cost no more than others.

    Args:
      image: uint8 or uint16 ``(H, W, C)``.
      size: side, or height and width, of the result; at most ``resize``.
      resize: length of the shorter side after resizing, or a height and width of which one is
        reached and the other is at least reached.
      interpolation: ``"bilinear"`` or ``"bicubic"``.
    """
    height, width = image.shape[:2]
    crop_height, crop_width = height_and_width(size)
    least_height, least_width = height_and_width(resize)
    # Size after resizing, and the crop's corner in it; rounded as in torchvision.
    if least_height * width >= least_width * height:
        new_height, new_width = least_height, int(least_height * width / height)
    else:
        new_height, new_width = int(least_width * height / width), least_width
    top, left = round((new_height - crop_height) / 2), round((new_width - crop_width) / 2)
    if (new_height, new_width) == (height, width):
        return np.ascontiguousarray(image[top : top + crop_height, left : left + crop_width])
    down, across = height / new_height, width / new_width
    box = (left * across, top * down, (left + crop_width) * across, (top + crop_height) * down)
    box = (*box[:2], min(box[2], width), min(box[3], height))  # rounding may exceed the image
    return _resample(image, (crop_width, crop_height), interpolation, box)


def _resample(
    image: np.ndarray, size: tuple[int, int], interpolation: str, box: tuple[float, ...]
) -> np.ndarray:
    """Resize a box of an image to ``size``, (width, height), with antialiasing."""
    from PIL import Image

    resampling = Image.Resampling[interpolation.upper()]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size, resampling, box))
    # Pillow has no type for other images, so each channel is resized on its own; values of 16
    # bits as floats, which hold them exactly.
    deep = image.dtype == np.uint16
    planes = np.moveaxis(image.astype(np.float32) if deep else image, 2, 0)
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, resampling, box))
        for plane in planes
    ]
    result = np.stack(resized, axis=2)
    return np.rint(result.clip(0, 65535)).astype(np.uint16) if deep else result
