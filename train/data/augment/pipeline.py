"""Augmentation inside the jitted step, of uint8 or uint16 images.

Every example has its own random key, so its augmentation does not depend on the distribution of
the batch over devices. Images keep their type until the step normalizes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from train.data.augment import image_ops
from train.data.augment.auto_augment import DRAWS as POLICY_DRAWS
from train.data.augment.auto_augment import Operation, Policy
from train.data.augment.mixup import Mixup, Targets

# Number of random numbers of each augmentation. All have a fixed position in one vector, so that
# the effect of one does not depend on which others are enabled. Append new entries at the end. The
# numbers of the policy follow, so a new entry still changes runs that use a policy.
_DRAWS = {
    "flip": 1,
    "shift": 2,
    "vertical": 1,
    "jitter": 4,
    "cutout": 2,
    "erasing": 5,
    "mix": Mixup.DRAWS,
}
_OWN = 1  # own augmentations get keys, of these numbers and more


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images, applied in the order of the attributes.

    Attributes:
      pad_crop: maximum shift in pixels, down and across, of a random crop after zero padding
        (He et al. 2015, arXiv:1512.03385, section 4.2); 0: off.
      hflip: whether to flip horizontally with probability 0.5.
      vflip: whether to flip vertically with probability 0.5.
      policies: in order, TrivialAugment, RandAugment, and own augmentations
        ``(image (H, W, C), key) -> image`` of the same shape and type.
      color_jitter: maximum change of the factors of brightness, contrast and saturation from 1,
        and of the hue from 0; see :func:`color_jitter`.
      cutout: side in pixels of a filled square (DeVries and Taylor 2017, arXiv:1708.04552);
        0: off.
      random_erasing: probability of filling a box (Zhong et al. 2017, arXiv:1708.04896).
      random_erasing_scale: range of its area fraction.
      random_erasing_ratio: range of its aspect ratio, height to width.
      mix: mixup and CutMix.
      fill: values of both kinds of boxes by channel; the mean color becomes 0 when normalized.
    """

    pad_crop: int = 0
    hflip: bool = False
    vflip: bool = False
    policies: tuple[Policy | Operation, ...] = ()
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    cutout: int = 0
    random_erasing: float = 0.0
    random_erasing_scale: tuple[float, float] = (0.02, 0.33)
    random_erasing_ratio: tuple[float, float] = (0.3, 3.3)
    mix: Mixup = field(default_factory=Mixup)
    fill: tuple[int, ...] = (0,)

    def __call__(self, images: jax.Array, keys: jax.Array) -> jax.Array:
        """Augment images ``(N, H, W, C)`` with one key each ``(N,)``, without targets."""
        return self.batch(images, jnp.zeros(len(images), int), keys)[0]

    def batch(
        self, images: jax.Array, labels: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Targets]:
        """Augment images and compute their targets.

        Args:
          images: uint8 or uint16 ``(N, H, W, C)``; for operations on colors uint8 RGB.
          labels: int ``(N,)``.
          keys: random keys ``(N,)``, see :func:`example_keys`.

        Returns:
          The images, of the same shape and type, and their targets.
        """
        if not (self._changes_images() or self.mix):
            return images, Targets(labels)
        draws = self._sample(keys)
        images = jax.vmap(self._shift_and_flip)(images, draws)
        images = self._apply_policies(images, keys, draws["policy"])
        if any(self.color_jitter):
            jitter = jax.vmap(lambda image, draws: color_jitter(image, self.color_jitter, draws))
            images = image_ops.compute_once(jitter, images, draws["jitter"])
        images = jax.vmap(self._fill_boxes)(images, draws)
        if self.mix:
            return self.mix(images, labels, draws["mix"])
        return images, Targets(labels)

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape ``(H, W, C)`` of augmented images: ``image_shape``."""
        return image_shape

    def _changes_images(self) -> bool:
        geometry = self.pad_crop or self.hflip or self.vflip
        return bool(
            geometry
            or self.policies
            or any(self.color_jitter)
            or self.cutout
            or self.random_erasing
        )

    def _sample(self, keys: jax.Array) -> dict[str, jax.Array]:
        """Return uniform random numbers ``(N, n)`` by name, ``(N, num_ops, 4)`` for ``policy``."""
        # One call per image: on CPUs, each call of threefry takes most of a second to compile.
        counts = list(_DRAWS.values())
        num_ops = sum(p.num_ops for p in self.policies if isinstance(p, Policy))
        total = sum(counts) + num_ops * POLICY_DRAWS
        draws = jax.vmap(lambda key: jax.random.uniform(key, (total,)))(keys)
        *parts, rest = jnp.split(draws, np.cumsum(counts), axis=1)
        policy = rest.reshape(len(keys), num_ops, POLICY_DRAWS)
        return dict(zip(_DRAWS, parts, strict=True)) | {"policy": policy}

    def _shift_and_flip(self, image: jax.Array, draws: dict[str, jax.Array]) -> jax.Array:
        if self.pad_crop:
            image = pad_crop(image, self.pad_crop, draws["shift"])
        if self.hflip:
            image = jnp.where(draws["flip"] < 0.5, image[:, ::-1], image)
        if self.vflip:
            image = jnp.where(draws["vertical"] < 0.5, image[::-1], image)
        return image

    def _apply_policies(self, images: jax.Array, keys: jax.Array, draws: jax.Array) -> jax.Array:
        used = 0
        for number, policy in enumerate(self.policies):
            if isinstance(policy, Policy):
                for _ in range(policy.num_ops):
                    images = image_ops.compute_once(jax.vmap(policy), images, draws[:, used])
                    used += 1
            else:
                own_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _OWN + number)
                images = jax.vmap(policy)(images, own_keys)
        return images

    def _fill_boxes(self, image: jax.Array, draws: dict[str, jax.Array]) -> jax.Array:
        fill = jnp.array(self.fill, image.dtype)
        if self.cutout:
            image = jnp.where(cutout_box(image.shape, self.cutout, draws["cutout"]), fill, image)
        if self.random_erasing:
            apply, *rest = draws["erasing"]
            inside = erasing_box(
                image.shape, self.random_erasing_scale, self.random_erasing_ratio, rest
            )
            image = jnp.where(inside & (apply < self.random_erasing), fill, image)
        return image


def pad_crop(image: jax.Array, pad: int, draws: jax.Array) -> jax.Array:
    """Shift an image by −pad…pad pixels down and across, uniformly; the border is black."""
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    down, across = (draws * (2 * pad + 1)).astype(int)
    return jax.lax.dynamic_slice(padded, (down, across, 0), image.shape)


def color_jitter(
    image: jax.Array, reach: tuple[float, float, float, float], draws: jax.Array
) -> jax.Array:
    """Change brightness, contrast, saturation and hue, like torchvision's ``ColorJitter``.

    Always in this order, which torchvision randomizes; the first three commute except for
    clipping.

    Args:
      image: uint8 ``(H, W, 3)``.
      reach: maximum change of the first three factors from 1, and of the hue from 0, in turns.
      draws: uniform random numbers ``(4,)``.
    """
    brightness, contrast, saturation, hue = reach
    low = jnp.array([max(0.0, 1 - reach) for reach in (brightness, contrast, saturation)] + [-hue])
    high = jnp.array([1 + brightness, 1 + contrast, 1 + saturation, hue])
    factors = low + draws * (high - low)
    image = image.astype(jnp.float32)
    if brightness:
        image = image_ops.blend(image, 0.0, factors[0])
    if contrast:
        image = image_ops.blend(image, image_ops.gray(image).mean(), factors[1])
    if saturation:
        image = image_ops.blend(image, image_ops.gray(image), factors[2])
    if hue:
        image = image_ops.shift_hue(image, factors[3])
    return jnp.round(image).astype(jnp.uint8)


def cutout_box(shape: tuple[int, ...], side: int, draws: jax.Array) -> jax.Array:
    """Return the mask ``(H, W, 1)`` of a square centered at any pixel, clipped at the border."""
    height, width, _ = shape
    top, left = jnp.floor(draws * jnp.array([height, width])) - side // 2
    return image_ops.box(height, width, top, left, side, side)


def erasing_box(
    shape: tuple[int, ...],
    area: tuple[float, float],
    aspect: tuple[float, float],
    draws: Sequence[jax.Array],
) -> jax.Array:
    """Return the mask ``(H, W, 1)`` of a box anywhere inside the image.

    Args:
      shape: ``(H, W, C)`` of the image.
      area: range of the area fraction, sampled uniformly.
      aspect: range of the aspect ratio, height to width, sampled log-uniformly from the values
        for which the box fits; torchvision samples both again until it fits.
      draws: uniform random numbers ``(4,)``.
    """
    height, width, _ = shape
    share, ratio, y, x = draws
    share = area[0] + share * (area[1] - area[0])
    tallest, widest = height / (share * width), share * height / width
    low, high = jnp.maximum(aspect[0], widest), jnp.minimum(aspect[1], tallest)
    ratio = jnp.exp(jnp.log(low) + ratio * jnp.log(high / low))
    size = jnp.sqrt(share * (height * width) * jnp.array([ratio, 1 / ratio]))
    rows, columns = jnp.clip(jnp.round(size), 1, jnp.array([height, width]))
    top, left = jnp.floor(y * (height - rows + 1)), jnp.floor(x * (width - columns + 1))
    return image_ops.box(height, width, top, left, rows, columns)


def example_keys(seed: int, step: jax.Array, position: jax.Array) -> jax.Array:
    """Return keys ``(N,)`` for the examples at ``position`` ``(N,)`` of global batch ``step``."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(position)
