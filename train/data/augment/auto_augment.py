"""TrivialAugment and RandAugment on the device.

Each image has one random operation at a time, but a batch needs all of them, and a device
processes a batch at once. Each round therefore computes three results for every image and
selects one: an affine resampling for the five geometric operations, a table lookup for the
pointwise operations, and a blend for the others. That costs little compared with a network's
step, and vectorized branches would all run anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from train.data.augment import image_ops
from train.data.registries import AUGMENTATIONS, register_augmentation
from train.runtime.errors import UsageError
from train.runtime.formatting import format_array
from train.runtime.own_code import FAILURES, build, describe

if TYPE_CHECKING:  # the augmentations need no ml_collections
    from train.runtime.config_dict import ConfigDict

Operation = Callable[[jax.Array, jax.Array], jax.Array]

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TABLES = ("identity", "brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")
BLENDS = ("color", "sharpness")
OPERATIONS = GEOMETRY + TABLES + BLENDS

MAGNITUDES = 31  # 0…30
DRAWS = 4  # random numbers per image and operation


@dataclass(frozen=True)
class Space:
    """The effect of the largest magnitude, as in torchvision.

    Attributes:
      shear: slope.
      translate: pixels, or a fraction of width or height if ``relative``.
      relative: whether ``translate`` is a fraction.
      rotate: degrees.
      enhance: change of the factor of brightness, contrast, color and sharpness from 1.
      posterize: number of bits removed.
    """

    shear: float
    translate: float
    relative: bool
    rotate: float
    enhance: float
    posterize: int


# The wide space of TrivialAugment (Müller and Hutter 2021, arXiv:2103.10158).
WIDE = Space(0.99, 32.0, False, 135.0, 0.99, 6)
# RandAugment (Cubuk et al. 2019, arXiv:1909.13719): 150 pixels, in images of 331 pixels.
NARROW = Space(0.3, 150 / 331, True, 30.0, 0.9, 4)


@dataclass(frozen=True)
class Policy:
    """A sequence of random operations, all equally likely.

    Attributes:
      space: the effect of the largest magnitude.
      num_ops: number of operations per image.
      magnitude: 0…30; None: a random one for each operation.
      probability: probability of applying each operation.
    """

    space: Space
    num_ops: int
    magnitude: int | None
    probability: float = 1.0

    def __call__(self, image: jax.Array, draws: jax.Array) -> jax.Array:
        """Apply one operation to an image, uint8 ``(H, W, 3)``; ``draws`` are uniform ``(4,)``."""
        operation, magnitude, sign, apply = draws
        operation = jnp.floor(operation * len(OPERATIONS))
        identity = OPERATIONS.index("identity")
        operation = jnp.where(apply < self.probability, operation, identity)
        if self.magnitude is None:
            magnitude = jnp.floor(magnitude * MAGNITUDES)
        else:
            magnitude = self.magnitude
        sign = jnp.where(sign < 0.5, -1.0, 1.0)
        return apply_operation(self.space, image, operation, magnitude / (MAGNITUDES - 1), sign)


def make_policies(augment: ConfigDict) -> tuple[Policy | Operation, ...]:
    """Build the augmentations that ``config.augment.policy`` names, in order."""
    names = augment.policy.split("+") if augment.policy else []
    return tuple(build(AUGMENTATIONS, name, augment) for name in names)


def check_operation(operation: Policy | Operation, image: jax.ShapeDtypeStruct) -> None:
    """Raise UsageError unless an own augmentation keeps the shape and type of an image."""
    if isinstance(operation, Policy):
        return
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        result = jax.eval_shape(operation, image, key)
    except FAILURES as error:
        raise UsageError(f"it fails: {describe(error)}") from error
    if (getattr(result, "shape", None), getattr(result, "dtype", None)) != (
        image.shape,
        image.dtype,
    ):
        raise UsageError(
            f"it returns {format_array(result)}, and must return an image as {format_array(image)}"
        )


@register_augmentation("trivial")
def make_trivial(augment: ConfigDict) -> Policy:
    """Return TrivialAugment."""
    return trivial_augment()


@register_augmentation("rand")
def make_rand(augment: ConfigDict) -> Policy:
    """Return RandAugment."""
    return rand_augment(augment.rand_num_ops, augment.rand_magnitude, augment.rand_prob)


def trivial_augment() -> Policy:
    """Return TrivialAugment: one operation per image, of random magnitude."""
    return Policy(WIDE, num_ops=1, magnitude=None)


def rand_augment(num_ops: int, magnitude: int, probability: float = 1.0) -> Policy:
    """Return RandAugment: ``num_ops`` operations of ``magnitude`` 0…30, see :class:`Policy`."""
    return Policy(NARROW, num_ops, magnitude, probability)


def apply_operation(
    space: Space, image: jax.Array, operation: jax.Array, strength: jax.Array, sign: jax.Array
) -> jax.Array:
    """Apply ``OPERATIONS[operation]`` to an image, uint8 ``(H, W, 3)``.

    Args:
      space: the effect of the largest magnitude.
      image: the image.
      operation: index into ``OPERATIONS``.
      strength: magnitude as a fraction of the largest, 0…1.
      sign: direction, −1 or 1.
    """

    def chosen(name: str) -> jax.Array:
        return operation == OPERATIONS.index(name)

    blended = _blend(space, image, chosen, strength * sign)
    looked_up = image_ops.apply_table(image, _table(space, image, chosen, strength, sign))
    moved = image_ops.resample(image, _matrix(space, image.shape, chosen, strength * sign))
    first_table, first_blend = len(GEOMETRY), len(GEOMETRY) + len(TABLES)
    rest = jnp.where(operation < first_blend, looked_up, blended)
    return jnp.where(operation < first_table, moved, rest)


def _matrix(space, shape, chosen, amount):
    height, width, _ = shape
    share_x, share_y = (width, height) if space.relative else (1, 1)

    def move(name, share):
        # Whole pixels, so that the image is not blurred.
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
    mean = (counts * image_ops.identity_table()).sum(0) / counts.sum(0)
    factor = 1 + strength * sign * space.enhance
    tables = {
        "identity": image_ops.identity_table(),
        "brightness": image_ops.blend(image_ops.identity_table(), 0.0, factor),
        "contrast": image_ops.blend(image_ops.identity_table(), image_ops.gray(mean), factor),
        "posterize": image_ops.posterize_table(jnp.round(strength * space.posterize).astype(int)),
        "solarize": image_ops.solarize_table(255 * (1 - strength)),
        "autocontrast": image_ops.autocontrast_table(counts),
        "equalize": image_ops.equalize_table(counts),
    }
    tables = jnp.stack(
        [jnp.broadcast_to(tables[name], counts.shape).astype(jnp.uint8) for name in TABLES]
    )
    # Selected by a product, which is exact for levels: XLA:CPU would compute jnp.where again for
    # each pixel that reads the table.
    weights = jnp.array([chosen(name) for name in TABLES], jnp.float32)
    return jnp.einsum("t,tlc->lc", weights, tables.astype(jnp.float32)).astype(jnp.uint8)


def _blend(space, image, chosen, amount):
    other = jnp.where(chosen("color"), image_ops.gray(image), image_ops.smooth(image))
    return image_ops.blend(image, other, 1 + amount * space.enhance).astype(jnp.uint8)
