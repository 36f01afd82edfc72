"""What a device does to one uint8 image ``(H, W, 3)``: resampling, tables of levels, blends.

Each operation is the one of the same name in Pillow and torchvision. Levels run from 0 to 255;
results that fall between two of them are cut off downwards where those libraries do so.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601: what red, green and blue add to a gray


def resample(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """The image under an affine map, bilinearly; what comes from outside is black.

    ``matrix`` float ``(2, 3)`` takes a place ``(x, y, 1)`` of the result, in pixels from the
    upper left corner of the picture, to where in ``image`` its colour lies.
    """
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width] + 0.5  # centres of the pixels
    (xx, xy, x0), (yx, yy, y0) = matrix
    x, y = xx * x + xy * y + x0 - 0.5, yx * x + yy * y + y0 - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]

    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))  # what lies outside, once
    left, top = left.astype(int) + 1, top.astype(int) + 1

    def row(y):
        y = jnp.clip(y, 0, height + 1)
        one = framed[y, jnp.clip(left, 0, width + 1)].astype(jnp.float32)
        next_one = framed[y, jnp.clip(left + 1, 0, width + 1)].astype(jnp.float32)
        return one * (1 - right_share) + next_one * right_share

    mixed = row(top) * (1 - lower_share) + row(top + 1) * lower_share
    return jnp.round(mixed).astype(jnp.uint8)


def affine(
    height: int,
    width: int,
    *,
    shear_x: jax.Array | float = 0.0,
    shear_y: jax.Array | float = 0.0,
    move_x: jax.Array | float = 0.0,
    move_y: jax.Array | float = 0.0,
    turn: jax.Array | float = 0.0,
) -> jax.Array:
    """The matrix for :func:`resample` of one of these; all zero give the identity, exactly.

    Shears leave the upper left corner where it is; moves are in pixels, right and down; turns
    in degrees about the centre, counterclockwise.
    """
    turn = jnp.deg2rad(turn)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    x, y = width / 2, height / 2
    return jnp.array(
        [
            [cos, shear_x - sin, x - cos * x + sin * y - move_x],
            [shear_y + sin, cos, y - sin * x - cos * y - move_y],
        ]
    )


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """Replaces level v of channel c by ``table[v, c]``, uint8 ``(256, C)``."""
    return table[image.astype(int), jnp.arange(image.shape[-1])]


def levels() -> jax.Array:
    """The table that changes nothing, float32 ``(256, 1)``."""
    return jnp.arange(256.0)[:, None]


def posterized(dropped_bits: jax.Array) -> jax.Array:
    """A table ``(256, 1)`` that sets the lowest bits to zero."""
    return jnp.arange(256)[:, None] >> dropped_bits << dropped_bits


def solarized(threshold: jax.Array) -> jax.Array:
    """A table ``(256, 1)`` that inverts the levels from ``threshold`` on."""
    return jnp.where(levels() >= threshold, 255 - levels(), levels())


def histogram(image: jax.Array) -> jax.Array:
    """How many pixels have each level, int ``(256, C)``."""
    channels = image.shape[-1]
    places = image.astype(int), jnp.arange(channels)
    return jnp.zeros((256, channels), int).at[places].add(1)


def autocontrasted(counts: jax.Array) -> jax.Array:
    """The table ``(256, C)`` that stretches the levels of a histogram over all of 0…255."""
    low, high = _lowest(counts), 255 - _lowest(counts[::-1])
    stretched = jnp.clip((levels() - low) * (255 / jnp.maximum(high - low, 1)), 0, 255)
    return jnp.where(high > low, stretched, levels())


def _lowest(counts):
    return (counts > 0).argmax(axis=0)


def equalized(counts: jax.Array) -> jax.Array:
    """The table ``(256, C)`` that gives every level of a histogram about as many pixels."""
    upto = jnp.cumsum(counts, axis=0)
    total = upto[-1]
    # Of the levels up to which all pixels lie, only the highest that occurs has any itself.
    highest = jnp.where(upto == total, counts, 0).max(axis=0)
    step = (total - highest) // 255
    even = jnp.clip((upto - counts + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, even, jnp.arange(256)[:, None])


def gray(image: jax.Array) -> jax.Array:
    """Luma ``(…, 1)`` of colours ``(…, 3)``, float32."""
    red, green, blue = (image[..., i : i + 1].astype(jnp.float32) for i in range(3))
    return _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue


def smoothed(image: jax.Array) -> jax.Array:
    """Means over 3×3 pixels, the middle one counted five times; the outermost stay. Float32."""
    height, width, _ = image.shape
    whole = image.astype(jnp.float32)
    framed = jnp.pad(whole, ((1, 1), (1, 1), (0, 0)))
    columns = framed[:-2] + framed[1:-1] + framed[2:]
    total = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] + 4 * whole
    return jnp.where(box(height, width, 1, 1, height - 2, width - 2), jnp.round(total / 13), whole)


def blend(image: jax.Array, other: jax.Array | float, factor: jax.Array) -> jax.Array:
    """``factor`` of the image, the rest of ``other``; beyond 1 away from it. Float32, 0…255."""
    image = image.astype(jnp.float32)
    # In this form a factor of 1, and an other that is equal, leave the image as it is exactly.
    return jnp.clip(image + (factor - 1) * (image - other), 0, 255)


def shift_hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Turns the hue of HSV by ``turns`` of the whole circle. Float32 ``(H, W, 3)`` in and out."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    high, low = image.max(-1), image.min(-1)
    chroma = high - low
    per_chroma = 1 / jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        high == red,
        (green - blue) * per_chroma,
        jnp.where(high == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )

    def channel(offset):
        k = jnp.mod(sixths + 6 * turns + offset, 6)
        return high - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)


def box(
    height: int,
    width: int,
    top: jax.Array | int,
    left: jax.Array | int,
    rows: jax.Array | int,
    columns: jax.Array | int,
) -> jax.Array:
    """True inside a box, bool ``(height, width, 1)``; what juts out is cut off."""
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)


def apart(function: Callable, images: jax.Array, draws: jax.Array) -> jax.Array:
    """``function(images, draws)``, computed once however many times the result is read.

    XLA:CPU would fuse a whole chain of operations into each of its readers: into the four pixels
    that a resampling reads for each of its own, say, and so on for what these read. It does not
    look into a branch, even of a condition that always holds. (It drops barriers.)
    """

    def branch(images, draws):
        holds = draws.ravel()[0] < 2  # draws are in 0…1, which the compiler doesn't know
        return jax.lax.cond(holds, function, lambda images, draws: images, images, draws)

    return jax.lax.platform_dependent(images, draws, cpu=branch, default=function)
