"""TrivialAugment and RandAugment: operations drawn at random from one table, on the device.

An image goes through one operation a layer, but a batch needs all of them, and a device works on
a batch at once. So each layer makes three passes over every image, in which an image whose
operation is another kind stays as it is: one affine resampling for the five geometric
operations, one look-up of levels for those that treat each pixel alike, and one blend.
A pass costs little beside a network's step, and branches would run all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from train.data.augment import image_ops

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TABLES = ("identity", "brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")
BLENDS = ("color", "sharpness")
OPERATIONS = GEOMETRY + TABLES + BLENDS

MAGNITUDES = 31  # 0 … 30, the strongest
DRAWS = 4  # random numbers an image takes in each layer


@dataclass(frozen=True)
class Space:
    """What the strongest magnitude does; torchvision's numbers for both policies.

    ``shear`` is a slope; ``translate`` is in pixels, or with ``relative`` in widths and heights;
    ``rotate`` in degrees; ``enhance`` is how far brightness, contrast, colour and sharpness go
    from a factor of 1; ``posterize`` counts bits that go.
    """

    shear: float
    translate: float
    relative: bool
    rotate: float
    enhance: float
    posterize: int


# The wide space of Müller and Hutter 2021, arXiv:2103.10158.
WIDE = Space(0.99, 32.0, False, 135.0, 0.99, 6)
# Cubuk et al. 2019, arXiv:1909.13719. The 150 pixels are those of its 331-pixel images.
NARROW = Space(0.3, 150 / 331, True, 30.0, 0.9, 4)


@dataclass(frozen=True)
class Policy:
    """``layers`` operations, all equally likely, one after another.

    Of ``magnitude`` 0…30, or, where it is None, a random one each time; each is done with
    ``probability``.
    """

    space: Space
    layers: int
    magnitude: int | None
    probability: float = 1.0

    def __call__(self, image: jax.Array, draws: jax.Array) -> jax.Array:
        """Does one layer to one uint8 ``(H, W, 3)`` image, by ``draws`` ``(4,)`` in 0…1."""
        operation, magnitude, sign, apply = draws
        operation = jnp.floor(operation * len(OPERATIONS))
        identity = OPERATIONS.index("identity")
        operation = jnp.where(apply < self.probability, operation, identity)
        if self.magnitude is None:
            magnitude = jnp.floor(magnitude * MAGNITUDES)
        else:
            magnitude = self.magnitude
        sign = jnp.where(sign < 0.5, -1.0, 1.0)
        return operate(self.space, image, operation, magnitude / (MAGNITUDES - 1), sign)


def trivial_augment() -> Policy:
    """One operation an image, of random strength."""
    return Policy(WIDE, layers=1, magnitude=None)


def rand_augment(layers: int, magnitude: int, probability: float = 1.0) -> Policy:
    """``layers`` operations of the same ``magnitude``, 0…30, each done with ``probability``."""
    return Policy(NARROW, layers, magnitude, probability)


def operate(
    space: Space, image: jax.Array, operation: jax.Array, strength: jax.Array, sign: jax.Array
) -> jax.Array:
    """``OPERATIONS[operation]`` on one image, of ``strength`` 0…1 and ``sign`` −1 or 1.

    Each of the three passes reads ``image`` itself, so that none waits for another.
    """

    def chosen(name: str) -> jax.Array:
        return operation == OPERATIONS.index(name)

    blended = _blended(space, image, chosen, strength * sign)
    looked_up = image_ops.look_up(image, _table(space, image, chosen, strength, sign))
    moved = image_ops.resample(image, _matrix(space, image.shape, chosen, strength * sign))
    first_table, first_blend = len(GEOMETRY), len(GEOMETRY) + len(TABLES)
    rest = jnp.where(operation < first_blend, looked_up, blended)
    return jnp.where(operation < first_table, moved, rest)


def _matrix(space, shape, chosen, amount):
    height, width, _ = shape
    share_x, share_y = (width, height) if space.relative else (1, 1)

    def move(name, share):
        # Whole pixels; the picture shifts, and is not blurred.
        return jnp.where(chosen(name), jnp.trunc(amount * (space.translate * share)), 0)

    return image_ops.affine(
        height,
        width,
        shear_x=jnp.where(chosen("shear_x"), amount * space.shear, 0),
        shear_y=jnp.where(chosen("shear_y"), amount * space.shear, 0),
        move_x=move("translate_x", share_x),
        move_y=move("translate_y", share_y),
        turn=jnp.where(chosen("rotate"), amount * space.rotate, 0),
    )


def _table(space, image, chosen, strength, sign):
    counts = image_ops.histogram(image)
    mean = (counts * image_ops.levels()).sum(0) / counts.sum(0)
    factor = 1 + strength * sign * space.enhance
    tables = {
        "identity": image_ops.levels(),
        "brightness": image_ops.blend(image_ops.levels(), 0.0, factor),
        "contrast": image_ops.blend(image_ops.levels(), image_ops.gray(mean), factor),
        "posterize": image_ops.posterized(jnp.round(strength * space.posterize).astype(int)),
        "solarize": image_ops.solarized(255 * (1 - strength)),
        "autocontrast": image_ops.autocontrasted(counts),
        "equalize": image_ops.equalized(counts),
    }
    tables = jnp.stack(
        [jnp.broadcast_to(tables[name], counts.shape).astype(jnp.uint8) for name in TABLES]
    )
    # A choice by product, which is exact with levels: the CPU's compiler would compute one
    # by jnp.where again for each pixel that looks it up.
    weights = jnp.array([chosen(name) for name in TABLES], jnp.float32)
    return jnp.einsum("t,tlc->lc", weights, tables.astype(jnp.float32)).astype(jnp.uint8)


def _blended(space, image, chosen, amount):
    other = jnp.where(chosen("color"), image_ops.gray(image), image_ops.smoothed(image))
    return image_ops.blend(image, other, 1 + amount * space.enhance).astype(jnp.uint8)
