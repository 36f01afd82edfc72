"""Augmentation of images together with their masks, inside the jitted step.

Scale, crop and flips move every pixel of an image and of its mask alike; colors of the image are
changed only. As in the rest of the augmentation, every example has its own random key.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from train.data.augment import image_ops
from train.data.augment.mixup import Mixup, Targets
from train.data.augment.pipeline import color_jitter

# Number of random numbers of each augmentation, at fixed positions; append new ones at the end.
_DRAWS = {"scale": 1, "crop": 2, "flip": 1, "vertical": 1, "jitter": 4}


class CropAxis(NamedTuple):
    """Where the pixels of a crop lie in an image, along one axis.

    Attributes:
      position: position of the center of each pixel ``(n,)``, in pixels of the image from the
        center of its first one.
      inside: whether it lies in the image, bool ``(n,)``.
      size: the last pixel of the image plus one.
    """

    position: jax.Array
    inside: jax.Array
    size: jax.Array


@dataclass(frozen=True)
class JointAugment:
    """Random scale, crop and flip of images and masks, and color jitter of images.

    As in the training of DeepLabv3 (Chen et al. 2017, arXiv:1706.05587, section 4.1): a picture is
    scaled, padded if it is smaller than the crop, and cropped. Padding of the canvas counts as
    outside of the picture.

    Attributes:
      scale_range: range of the scale, sampled uniformly.
      crop_size: height and width of the result in pixels; None: those of the canvas.
      hflip: whether to flip horizontally with probability 0.5.
      vflip: whether to flip vertically with probability 0.5.
      color_jitter: as for ``Augment``.
      fill: values outside of the picture by channel; the mean color becomes 0 when normalized.
      ignored: class outside of the picture.
      mix: none; images with masks are not mixed.
    """

    scale_range: tuple[float, float] = (1.0, 1.0)
    crop_size: tuple[int, int] | None = None
    hflip: bool = False
    vflip: bool = False
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    fill: tuple[int, ...] = (0,)
    ignored: int = 255
    mix: Mixup = field(default_factory=Mixup)

    def batch(
        self, images: jax.Array, masks: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Targets]:
        """Augment images and masks.

        Args:
          images: uint8 or uint16 ``(N, H, W, C)``, with color jitter uint8 RGB; each in the upper
            left corner, with ``fill`` below and to the right of it.
          masks: uint8 ``(N, H, W)``, with ``ignored`` there.
          keys: random keys ``(N,)``, see ``pipeline.example_keys``.

        Returns:
          Images of the same type, ``(N, *crop_size, C)``, and the targets with masks uint8
          ``(N, *crop_size)`` as ``label``.
        """
        total = sum(_DRAWS.values())
        # One call per image: on CPUs, each call of threefry takes most of a second to compile.
        draws = jax.vmap(lambda key: jax.random.uniform(key, (total,)))(keys)
        parts = jnp.split(draws, np.cumsum(list(_DRAWS.values()))[:-1], axis=1)
        draws = dict(zip(_DRAWS, parts, strict=True))
        images, masks, inside = jax.vmap(self._move)(images, masks, draws)
        fill = jnp.array(self.fill, images.dtype)
        images = jnp.where(inside[..., None], images, fill)
        if any(self.color_jitter):
            jitter = jax.vmap(lambda image, draws: color_jitter(image, self.color_jitter, draws))
            images = image_ops.compute_once(jitter, images, draws["jitter"])
            images = jnp.where(inside[..., None], images, fill)
        return images, Targets(jnp.where(inside, masks, jnp.uint8(self.ignored)))

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape ``(H, W, C)`` of augmented images of canvases of ``image_shape``."""
        height, width = self.crop_size or image_shape[:2]
        return height, width, image_shape[2]

    def _move(
        self, image: jax.Array, mask: jax.Array, draws: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Scale, crop and flip one image and its mask.

        Returns:
          Image, mask, and which of their pixels lie in the picture, bool ``(H, W)``.
        """
        scale = None
        if self.scale_range != (1.0, 1.0):
            low, high = self.scale_range
            scale = low + draws["scale"][0] * (high - low)
        # Rows and columns at the border that are ignored may still be of the picture.
        used = (mask != self.ignored) | (image != jnp.array(self.fill, image.dtype)).any(-1)
        rows, columns = self._axes(used, scale, draws["crop"])
        if self.hflip:
            columns = _flip(columns, draws["flip"][0])
        if self.vflip:
            rows = _flip(rows, draws["vertical"][0])
        inside = rows.inside[:, None] & columns.inside
        return bilinear(image, rows, columns), nearest(mask, rows, columns), inside

    def _axes(self, used: jax.Array, scale: jax.Array | None, draws: jax.Array) -> list[CropAxis]:
        """Return where rows and columns of the crop lie in the picture.

        Args:
          used: pixels of the canvas that are no padding, bool ``(H, W)``.
          scale: scale of the picture; None: 1.
          draws: uniform random numbers ``(2,)``.
        """
        crop = self.crop_size or used.shape
        axes = []
        for axis, (side, canvas) in enumerate(zip(crop, used.shape, strict=True)):
            size = _last(used.any(1 - axis))
            if scale is None and side == canvas:  # the canvas itself
                axes.append(CropAxis(jnp.arange(side) + 0.0, jnp.arange(side) < size, size))
                continue
            scaled = size if scale is None else jnp.maximum(jnp.round(size * scale), 1)
            # Of a picture that is smaller than the crop, the padding is before and behind it.
            start = jnp.round(draws[axis] * (scaled - side))
            position = (jnp.arange(side) + start + 0.5) / scaled
            inside = (position >= 0) & (position < 1)
            axes.append(CropAxis(position * size - 0.5, inside, size))
        return axes


def bilinear(image: jax.Array, rows: CropAxis, columns: CropAxis) -> jax.Array:
    """Return an image ``(H, W, C)`` at the positions of two axes, of the same type.

    Pixels beyond the border equal those at the border, as in PyTorch's ``interpolate``.
    """

    def mix(values: jax.Array, axis: int, along: CropAxis) -> jax.Array:
        first = jnp.floor(along.position)
        share = jnp.expand_dims(along.position - first, range(1, values.ndim - axis))
        one, other = (
            jnp.take(values, jnp.clip(index, 0, along.size - 1), axis, mode="clip")
            for index in (first.astype(int), first.astype(int) + 1)
        )
        return one.astype(jnp.float32) * (1 - share) + other.astype(jnp.float32) * share

    mixed = mix(mix(image, 0, rows), 1, columns)
    return jnp.round(mixed).astype(image.dtype)


def nearest(mask: jax.Array, rows: CropAxis, columns: CropAxis) -> jax.Array:
    """Return a mask ``(H, W)`` at the positions of two axes: the class of the nearest pixel."""
    for axis, along in enumerate((rows, columns)):
        index = jnp.floor(along.position + 0.5).astype(int)
        mask = jnp.take(mask, jnp.clip(index, 0, along.size - 1), axis, mode="clip")
    return mask


def _flip(axis: CropAxis, draw: jax.Array) -> CropAxis:
    position, inside = (
        jnp.where(draw < 0.5, values[::-1], values) for values in (axis.position, axis.inside)
    )
    return CropAxis(position, inside, axis.size)


def _last(used: jax.Array) -> jax.Array:
    """Return the number of values up to the last one in use, at least 1; all if none is."""
    count = used.shape[0]
    last = count - jnp.argmax(used[::-1])
    return jnp.where(used.any(), last, count)
