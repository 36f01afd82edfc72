"""Average and blur pooling, for shortcuts and anti-aliased strides."""

import jax
import jax.numpy as jnp


def average_pool(x: jax.Array, stride: int, dilation: int = 1) -> jax.Array:
    """Return 2×2 means of pixels ``dilation`` apart, at the edges only of existing pixels."""

    def total(x: jax.Array) -> jax.Array:
        length = dilation + 1
        pads = [(0, max(0, -(-n // stride) * stride - stride + length - n)) for n in x.shape[1:3]]
        return jax.lax.reduce_window(
            x,
            0.0,
            jax.lax.add,
            window_dimensions=(1, 2, 2, 1),
            window_strides=(1, stride, stride, 1),
            padding=((0, 0), *pads, (0, 0)),
            window_dilation=(1, dilation, dilation, 1),
        )

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def blur_pool(x: jax.Array, stride: int, dilation: int = 1) -> jax.Array:
    """Return every ``stride``-th pixel of the map blurred by the binomial filter 1-2-1.

    The filter is applied along both axes to pixels ``dilation`` apart. Beyond the edges it
    reflects the map (Zhang 2019, arXiv:1904.11486, section 3.2).

    Args:
      x: map ``(N, H, W, C)``.
      stride: stride of the result, ``(N, ceil(H / stride), ceil(W / stride), C)``.
      dilation: with a dilation of d the result has at every d-th pixel what the map of every
        d-th pixel gives without dilation.
    """
    return _blur(_blur(x, 1, stride, dilation), 2, stride, dilation)


def _blur(x: jax.Array, axis: int, stride: int, dilation: int) -> jax.Array:
    size = x.shape[axis]

    def pixels(x: jax.Array, start: int, stop: int, stride: int = 1) -> jax.Array:
        return jax.lax.slice_in_dim(x, start, stop, stride, axis)

    if size <= dilation:  # no pixel has a neighbor
        return pixels(x, 0, size, stride)
    # A pixel whose neighbor is beyond the edge has the one on its other side, if any, twice.
    before = [i + dilation if i + dilation < size else i for i in range(dilation)]
    after = [i - dilation if i >= dilation else i for i in range(size - dilation, size)]
    edges = [[pixels(x, i, i + 1) for i in neighbors] for neighbors in (before, after)]
    padded = jnp.concatenate([*edges[0], x, *edges[1]], axis)
    left, middle, right = (
        pixels(padded, start, start + size, stride) for start in (0, dilation, 2 * dilation)
    )
    return (left + right) * 0.25 + middle * 0.5


# Filters of the field ``antialias``.
ANTIALIAS = {"blur": blur_pool, "average": average_pool}
