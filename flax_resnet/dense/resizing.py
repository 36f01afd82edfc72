"""Resizing of feature maps and logits."""

import jax
import jax.numpy as jnp
import numpy as np


def resize_bilinear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resize ``(N, H, W, C)`` to ``size`` bilinearly, between the centers of pixels.

    It equals PyTorch's ``interpolate(mode="bilinear", align_corners=False)``. As products with
    two constant matrices it has a deterministic gradient without scattering.
    """
    height, width = size
    if x.shape[1] != height:
        x = _product("oh,nhwc->nowc", _bilinear_weights(x.shape[1], height), x)
    if x.shape[2] != width:
        x = _product("ow,nhwc->nhoc", _bilinear_weights(x.shape[2], width), x)
    return x


def _product(formula: str, weights: np.ndarray, x: jax.Array) -> jax.Array:
    # GPUs and TPUs would otherwise round float32 to 10 or 7 bits.
    return jnp.einsum(
        formula, jnp.asarray(weights, x.dtype), x, precision=jax.lax.Precision.HIGHEST
    )


def _bilinear_weights(before: int, after: int) -> np.ndarray:
    """Return the weights ``(after, before)`` of the input pixels in each output pixel."""
    centers = (np.arange(after) + 0.5) * (before / after) - 0.5
    centers = np.clip(centers, 0, before - 1)
    distances = abs(centers[:, None] - np.arange(before))
    return np.maximum(0.0, 1.0 - distances).astype(np.float32)


def upsample_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Repeat the pixels of ``(N, H, W, C)``, and crop the result to ``size``.

    The factors are ``size`` divided by ``(H, W)``, rounded up. From one stage of a ResNet to the
    previous one, whose map has twice the pixels or one less, it equals PyTorch's
    ``interpolate(mode="nearest")``.
    """
    n, height, width, channels = x.shape
    rows, columns = -(-size[0] // height), -(-size[1] // width)
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, height, rows, width, columns, channels))
    x = x.reshape(n, height * rows, width * columns, channels)
    return x[:, : size[0], : size[1]]
