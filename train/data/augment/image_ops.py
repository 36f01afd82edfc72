"""Operations on one uint8 image ``(H, W, 3)``: resampling, lookup tables and blends.

Each is equivalent to the operation of the same name in Pillow and torchvision. Levels are 0…255;
results between two levels are rounded down where those libraries do so.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_GRAY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)


def resample(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Resample an image bilinearly under an affine map, with black outside the image.

    Args:
      image: uint8 ``(H, W, 3)``.
      matrix: float ``(2, 3)``, maps a position ``(x, y, 1)`` in the result to one in ``image``,
        in pixels from the upper left corner.
    """
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width] + 0.5  # centers of the pixels
    (xx, xy, x0), (yx, yy, y0) = matrix
    x, y = xx * x + xy * y + x0 - 0.5, yx * x + yy * y + y0 - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]

    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))  # one black pixel on each side
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
    """Return the matrix of one transformation for :func:`resample`; exactly the identity for 0.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.
      shear_x: slope of a horizontal shear that keeps the upper left corner in place.
      shear_y: slope of a vertical shear.
      move_x: pixels to the right.
      move_y: pixels down.
      turn: degrees counterclockwise about the center.
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


def apply_table(image: jax.Array, table: jax.Array) -> jax.Array:
    """Replace level v of channel c by ``table[v, c]``; the table is uint8 ``(256, C)``."""
    return table[image.astype(int), jnp.arange(image.shape[-1])]


def identity_table() -> jax.Array:
    """Return the table that changes nothing, float32 ``(256, 1)``."""
    return jnp.arange(256.0)[:, None]


def posterize_table(dropped_bits: jax.Array) -> jax.Array:
    """Return a table ``(256, 1)`` that sets the lowest bits to zero."""
    return jnp.arange(256)[:, None] >> dropped_bits << dropped_bits


def solarize_table(threshold: jax.Array) -> jax.Array:
    """Return a table ``(256, 1)`` that inverts levels of at least ``threshold``."""
    return jnp.where(identity_table() >= threshold, 255 - identity_table(), identity_table())


def histogram(image: jax.Array) -> jax.Array:
    """Return the number of pixels of each level, int ``(256, C)``."""
    channels = image.shape[-1]
    index = image.astype(int), jnp.arange(channels)
    return jnp.zeros((256, channels), int).at[index].add(1)


def autocontrast_table(counts: jax.Array) -> jax.Array:
    """Return the table ``(256, C)`` that stretches the levels of a histogram to 0…255."""
    low, high = (counts > 0).argmax(axis=0), 255 - (counts[::-1] > 0).argmax(axis=0)
    stretched = jnp.clip((identity_table() - low) * (255 / jnp.maximum(high - low, 1)), 0, 255)
    return jnp.where(high > low, stretched, identity_table())


def equalize_table(counts: jax.Array) -> jax.Array:
    """Return the table ``(256, C)`` that makes a histogram about uniform."""
    cumulative = jnp.cumsum(counts, axis=0)
    total = cumulative[-1]
    # Number of pixels of the highest level: later levels have the same cumulative count, but no
    # pixels.
    highest = jnp.where(cumulative == total, counts, 0).max(axis=0)
    step = (total - highest) // 255
    even = jnp.clip((cumulative - counts + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, even, jnp.arange(256)[:, None])


def gray(image: jax.Array) -> jax.Array:
    """Return the luma ``(…, 1)`` of RGB colors ``(…, 3)``, float32."""
    red, green, blue = (image[..., i : i + 1].astype(jnp.float32) for i in range(3))
    return _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue


def smooth(image: jax.Array) -> jax.Array:
    """Return means over 3×3 pixels with weight 5 for the center, except at the border; float32."""
    height, width, _ = image.shape
    whole = image.astype(jnp.float32)
    framed = jnp.pad(whole, ((1, 1), (1, 1), (0, 0)))
    columns = framed[:-2] + framed[1:-1] + framed[2:]
    total = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] + 4 * whole
    return jnp.where(box(height, width, 1, 1, height - 2, width - 2), jnp.round(total / 13), whole)


def blend(image: jax.Array, other: jax.Array | float, factor: jax.Array) -> jax.Array:
    """Return ``factor * image + (1 - factor) * other``, clipped to 0…255, float32."""
    image = image.astype(jnp.float32)
    # In this form, a factor of 1 and an equal ``other`` leave the image exactly unchanged.
    return jnp.clip(image + (factor - 1) * (image - other), 0, 255)


def shift_hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Shift the HSV hue of an image, float32 ``(H, W, 3)``, by ``turns`` of the color circle."""
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
    """Return the mask of a box, clipped to the image, bool ``(height, width, 1)``."""
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)


def compute_once(function: Callable, images: jax.Array, draws: jax.Array) -> jax.Array:
    """Return ``function(images, draws)``, computed once however often the result is read.

    XLA:CPU would fuse a chain of operations into each of its consumers, such as into each of the
    four pixels that a resampling reads for one of its own. It does not fuse across a branch, even
    if the condition always holds. (It removes optimization barriers.)
    """

    def branch(images, draws):
        holds = draws.ravel()[0] < 2  # always true: draws are in 0…1
        return jax.lax.cond(holds, function, lambda images, draws: images, images, draws)

    return jax.lax.platform_dependent(images, draws, cpu=branch, default=function)
