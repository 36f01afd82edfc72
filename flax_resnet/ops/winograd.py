"""3×3 convolutions by Winograd's minimal filtering: 16 multiplications instead of 36.

Used on CPUs for at least 128 input and output channels.

Lavin and Gray 2015 (arXiv:1509.09308), F(2×2, 3×3). Every 2×2 outputs come from a tile of 4×4
inputs; with tile and kernel transformed, the convolution is a product of matrices for each of the
16 positions in a tile:

    Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

XLA:CPU multiplies matrices at the machine's peak rate, so this is 1.2 to 2 times as fast as its
direct convolutions. The transforms only add and halve: in float32 the result is within 1e-6 of the
direct one's norm. The kernel gradient uses the same tiles; the input gradient is a convolution.
"""

import jax
import jax.numpy as jnp
from jax import lax

from flax_resnet.ops import chunks

# Bytes of images transformed at a time. A tile's 16 positions hold four times as much, which should
# stay in the processor's cache between the transforms and the products.
_CHUNK = chunks.MaxBytes(one_core=2**20, many_cores=2**23)


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve ``(N, H, W, C)`` with ``(3, 3, C, K)`` to ``(N, H, W, K)``: stride 1, padding 1."""
    kernels = _kernel_tiles(kernel)
    return chunks.map_chunks(lambda x: _filter(x, kernels, jnp.matmul), x, _CHUNK)


def _forward(x: jax.Array, kernel: jax.Array):
    return conv3x3(x, kernel), (x, kernel)


def _backward(saved, gradient: jax.Array):
    """Return the gradients; the input's is a convolution with the flipped, transposed kernel.

    Flipping swaps the first and the last of the four positions. Instead of transposing the kernel's
    channels, which would take longer than everything else, the product contracts the other axis.
    """
    x, kernel = saved
    order = (3, 1, 2, 0)
    tiles = _kernel_tiles(kernel)
    kernels = [[tiles[i][j] for j in order] for i in order]
    input_gradient = chunks.map_chunks(
        lambda x: _filter(x, kernels, _times_transposed), gradient, _CHUNK
    )
    return input_gradient, _kernel_gradient(x, gradient)


conv3x3.defvjp(_forward, _backward)


def _times_transposed(a: jax.Array, b: jax.Array) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())))


def transposed_times(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return ``aᵀ b`` of ``(P, C)`` and ``(P, K)``."""
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def _filter(x: jax.Array, kernels: list[list[jax.Array]], multiply) -> jax.Array:
    batch, height, width, _ = x.shape
    products = [
        [multiply(tile, kernel) for tile, kernel in zip(*rows, strict=True)]
        for rows in zip(_input_tiles(x), kernels, strict=True)
    ]
    y = jnp.stack([jnp.stack(row, 1) for row in _transform(_output, products)], 1)
    y = y.reshape(batch, -(-height // 2), -(-width // 2), 2, 2, -1)
    batch, rows, columns, _, _, channels = y.shape
    y = y.swapaxes(2, 3).reshape(batch, 2 * rows, 2 * columns, channels)
    return y[:, :height, :width]


def _kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    def products(x, gradient):
        pairs = zip(_input_tiles(x), _gradient_tiles(gradient), strict=True)
        return [[transposed_times(a, b) for a, b in zip(*rows, strict=True)] for rows in pairs]

    parts = chunks.count(x, _CHUNK)
    if parts <= 1:
        tiles = products(x, gradient)
    else:
        both = [chunks.split(a, parts) for a in (x, gradient)]
        zero = jnp.zeros((x.shape[-1], gradient.shape[-1]), x.dtype)
        start = [[zero] * 4 for _ in range(4)]

        def step(total, both):
            return jax.tree.map(jnp.add, total, products(*both)), None

        tiles, _ = lax.scan(step, start, both)
    return jnp.stack([jnp.stack(row) for row in _transform(_kernel_transposed, tiles)])


def _input_tiles(x: jax.Array) -> list[list[jax.Array]]:
    """Return ``Bᵀ d B``: 4×4 arrays ``(tiles, C)``."""
    _, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))

    def along(x: jax.Array, axis: int):
        count = (x.shape[axis] - 2) // 2
        a, b, c, d = (
            lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(4)
        )
        return a - c, b + c, c - b, b - d

    return [[tile.reshape(-1, channels) for tile in along(rows, 2)] for rows in along(x, 1)]


def _gradient_tiles(y: jax.Array) -> list[list[jax.Array]]:
    """Return ``A dy Aᵀ``: 4×4 arrays ``(tiles, K)``."""
    _, height, width, channels = y.shape
    y = jnp.pad(y, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))

    def along(a: jax.Array, b: jax.Array):
        return a, a + b, a - b, -b

    rows = along(y[:, 0::2], y[:, 1::2])
    return [
        [tile.reshape(-1, channels) for tile in along(row[:, :, 0::2], row[:, :, 1::2])]
        for row in rows
    ]


def _kernel_tiles(kernel: jax.Array) -> list[list[jax.Array]]:
    """Return ``G g Gᵀ``: 4×4 arrays ``(C, K)``."""
    return _transform(_kernel, [[kernel[i, j] for j in range(3)] for i in range(3)])


def _kernel(a, b, c):
    """Multiply by ``G``."""
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _kernel_transposed(a, b, c, d):
    """Multiply by ``Gᵀ``."""
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d


def _output(a, b, c, d):
    """Multiply by ``Aᵀ``."""
    return a + b + c, b - c - d


def _transform(function, square: list[list[jax.Array]]) -> list[list[jax.Array]]:
    """Apply ``function`` along the columns, then along the rows, of a square of arrays."""
    rows = list(zip(*(function(*column) for column in zip(*square, strict=True)), strict=True))
    return [list(function(*row)) for row in rows]
