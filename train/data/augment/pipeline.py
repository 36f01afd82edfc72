"""Augmentation and normalisation inside the jitted step: uint8 images in, floats out.

Every example draws from its own key, so that what happens to it does not depend on how
the batch is spread over devices. Images stay uint8 until they are normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from train.data.augment import image_ops
from train.data.augment.auto_augment import DRAWS as POLICY_DRAWS
from train.data.augment.auto_augment import Policy
from train.data.augment.mixup import Mixup, Targets

# How many random numbers each part takes. All have their places in one vector, so that what
# one does to an example does not depend on which others are on.
_DRAWS = {
    "flip": 1,
    "shift": 2,
    "vertical": 1,
    "jitter": 4,
    "cutout": 2,
    "erasing": 5,
    "mix": Mixup.DRAWS,
}


@dataclass(frozen=True)
class Augment:
    """What happens to training images, in this order; the ``augment.*`` keys.

    ``color_jitter`` says how far brightness, contrast and saturation may go from 1, and the hue
    from 0; ``cutout`` is the side of a square, ``erasing`` a probability, with the range of the
    box's share of the image and of its height over its width. Boxes are filled with ``fill``:
    the mean colour is zero once it is normalised.
    """

    pad_crop: int = 0
    hflip: bool = False
    vflip: bool = False
    policy: Policy | None = None
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    cutout: int = 0
    random_erasing: float = 0.0
    random_erasing_scale: tuple[float, float] = (0.02, 0.33)
    random_erasing_ratio: tuple[float, float] = (0.3, 3.3)
    mix: Mixup = field(default_factory=Mixup)
    fill: tuple[int, int, int] = (0, 0, 0)

    def __call__(self, images: jax.Array, keys: jax.Array) -> jax.Array:
        """Augments uint8 ``(N, H, W, 3)`` images, one key each; same shape and type."""
        return self.batch(images, jnp.zeros(len(images), int), keys)[0]

    def batch(
        self, images: jax.Array, labels: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, Targets]:
        """As above, with the targets that the images of ``labels`` ``(N,)`` then have."""
        if not (self._changes_images() or self.mix):
            return images, Targets(labels)
        draws = self._draw(keys)
        images = jax.vmap(self._place)(images, draws)
        if self.policy:
            for layer in range(self.policy.layers):
                images = image_ops.apart(jax.vmap(self.policy), images, draws["policy"][:, layer])
        if any(self.color_jitter):
            jitter = jax.vmap(lambda image, draws: color_jitter(image, self.color_jitter, draws))
            images = image_ops.apart(jitter, images, draws["jitter"])
        images = jax.vmap(self._blank)(images, draws)
        if self.mix:
            return self.mix(images, labels, draws["mix"])
        return images, Targets(labels)

    def _changes_images(self) -> bool:
        geometry = self.pad_crop or self.hflip or self.vflip
        return bool(
            geometry or self.policy or any(self.color_jitter) or self.cutout or self.random_erasing
        )

    def _draw(self, keys: jax.Array) -> dict[str, jax.Array]:
        """Uniform numbers ``(N, n)`` by name, the policy's ``(N, layers, 4)``."""
        # One draw an image: compiling threefry costs most of a second a draw on CPUs.
        counts = list(_DRAWS.values())
        layers = self.policy.layers if self.policy else 0
        total = sum(counts) + layers * POLICY_DRAWS
        draws = jax.vmap(lambda key: jax.random.uniform(key, (total,)))(keys)
        *parts, rest = jnp.split(draws, np.cumsum(counts), axis=1)
        policy = rest.reshape(len(keys), layers, POLICY_DRAWS)
        return dict(zip(_DRAWS, parts, strict=True)) | {"policy": policy}

    def _place(self, image: jax.Array, draws: dict[str, jax.Array]) -> jax.Array:
        if self.pad_crop:
            image = pad_crop(image, self.pad_crop, draws["shift"])
        if self.hflip:
            image = jnp.where(draws["flip"] < 0.5, image[:, ::-1], image)
        if self.vflip:
            image = jnp.where(draws["vertical"] < 0.5, image[::-1], image)
        return image

    def _blank(self, image: jax.Array, draws: dict[str, jax.Array]) -> jax.Array:
        fill = jnp.array(self.fill, jnp.uint8)
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
    """Shifts by −pad … pad down and across, each as likely; the border is black."""
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    down, across = (draws * (2 * pad + 1)).astype(int)
    return jax.lax.dynamic_slice(padded, (down, across, 0), image.shape)


def color_jitter(
    image: jax.Array, reach: tuple[float, float, float, float], draws: jax.Array
) -> jax.Array:
    """Brightness, contrast, saturation and hue at random, as torchvision's ``ColorJitter``.

    In this order always, where torchvision draws one: the first three commute except where
    levels are clipped.
    """
    brightness, contrast, saturation, hue = reach
    low = [max(0.0, 1 - reach) for reach in (brightness, contrast, saturation)] + [-hue]
    high = [1 + brightness, 1 + contrast, 1 + saturation, hue]
    low, high = jnp.array(low), jnp.array(high)
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
    """A square around any pixel, cut off at the border (DeVries and Taylor, arXiv:1708.04552)."""
    height, width, _ = shape
    top, left = jnp.floor(draws * jnp.array([height, width])) - side // 2
    return image_ops.box(height, width, top, left, side, side)


def erasing_box(
    shape: tuple[int, ...],
    area: tuple[float, float],
    aspect: tuple[float, float],
    draws: Sequence[jax.Array],
) -> jax.Array:
    """A box anywhere within the image (Zhong et al. 2017, arXiv:1708.04896).

    Its share of the image is uniform in ``area``, its height over its width log-uniform in
    that part of ``aspect`` with which it fits: torchvision draws both again until it does.
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
    """Keys ``(N,)`` of the examples at ``position`` ``(N,)`` of the global batch ``step``."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(position)
