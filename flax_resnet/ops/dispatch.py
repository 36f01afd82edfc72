"""Choice of the fastest implementation per backend, dtype and shape; see the package."""

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from flax_resnet.ops import im2col, pooling, winograd
from flax_resnet.ops.onednn import library as onednn
from flax_resnet.ops.onednn.convolutions import Geometry

# Limits within which Winograd's algorithm is worth its compilation time: input and output channels,
# pixels of the whole batch, and multiply-adds of the layer.
MIN_WINOGRAD_CHANNELS = 128
MIN_PIXELS, MIN_MULTIPLY_ADDS = 128, 5e7
# Pixels of a map that XLA convolves slowly at any batch size; Winograd's algorithm is used if there
# are enough channels and images.
SMALL_MAP_PIXELS = 4
# Channels of the dense convolutions that replace a grouped one.
GROUPED_CHANNELS = 32
NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

BACKENDS = ("cpu", "onednn", "gpu", "tpu", "plain")
# Part of the key of JAX's caches: functions are traced again inside the context.
_forced_backend = jax.make_user_context("")


def use_xla_ops() -> contextlib.AbstractContextManager:
    """Use XLA's own operations on every backend while the returned context is active.

    For comparisons, for forward-mode derivatives (``jax.jvp``; most custom implementations support
    only reverse mode), and for programs that run on another backend than the one that traces them.
    Only the ReLU is still specific to the platform on which the program runs.
    """
    return _forced_backend("plain")


def use_backend(backend: str) -> contextlib.AbstractContextManager:
    """Use the implementations for the given backend while the returned context is active.

    To compile for a backend that is not available, and to measure implementations that are not
    the default.

    Args:
      backend: ``"cpu"``, ``"onednn"`` for a CPU with that library, ``"gpu"``, ``"tpu"``, or
        ``"plain"``, which is :func:`use_xla_ops`.

    Raises:
      ValueError: for other names, or if oneDNN is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; valid are {', '.join(BACKENDS)}")
    if backend == "onednn" and not onednn.is_available():
        raise ValueError("oneDNN is not installed: pip install 'flax-resnet[onednn]'")
    return _forced_backend(backend)


def default_backend() -> str:
    """Return that of :func:`use_backend` which applies outside of it."""
    backend = jax.default_backend()
    return "onednn" if backend == "cpu" and onednn.is_available() else backend


def _backend() -> str:
    return _forced_backend.value or default_backend()


def _is_on_cpu() -> bool:
    return _backend() in ("cpu", "onednn")


def uses_custom_gradient(x: jax.Array) -> bool:
    """Return whether batch norm and pooling of ``x`` use their custom gradients (on GPUs).

    These read and write less memory. On CPUs batch norm's custom gradient is not faster, and on
    TPUs the compiler estimates that they take longer (benchmarks/RESULTS.md).
    """
    return _backend() == "gpu" and _supports_custom_gradient(x)


def _uses_cpu_ops(*arrays: jax.Array) -> bool:
    """Return whether to use the CPU implementations, which were measured in float32 only."""
    return _is_on_cpu() and all(
        array.dtype == jnp.float32 and _supports_custom_gradient(array) for array in arrays
    )


def _supports_custom_gradient(array: jax.Array) -> bool:
    """Return False for symbolic shapes (``jax.export``), device-varying and sharded values.

    The custom gradients do not track the axes over which values vary in a ``jax.shard_map`` with
    ``check_vma=True``, or are sharded according to their type, over axes of ``AxisType.Explicit``.
    """
    kind = jax.typeof(array)
    axis_type = getattr(kind, "manual_axis_type", None)  # called vma in other releases of JAX
    varies = bool(getattr(axis_type, "varying", None) or getattr(kind, "vma", None))
    sharding = getattr(kind, "sharding", None)
    sharded = any(axis is not None for axis in getattr(sharding, "spec", ()))
    return not varies and not sharded and all(isinstance(size, int) for size in array.shape)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """Compute ``jax.lax.conv_general_dilated``, for ``nn.Conv(conv_general_dilated=…)``."""

    def xla(lhs, rhs, groups=1, padding=padding):
        geometry = window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
        return lax.conv_general_dilated(lhs, rhs, *geometry, groups, precision=precision)

    images = lhs.ndim == rhs.ndim == 4 and dimension_numbers == NHWC
    explicit = not isinstance(padding, str) and precision is None
    if not (images and explicit and _uses_cpu_ops(lhs, rhs)):
        return xla(lhs, rhs, feature_group_count)

    def onednn(lhs, rhs, groups=1, padding=padding):
        from flax_resnet.ops.onednn import handler, operation  # importing them needs llvmlite

        (top, bottom), (left, right) = padding
        geometry = Geometry(
            *(lhs.shape, rhs.shape, (*window_strides,), (top, bottom, left, right)),
            *((*(rhs_dilation or (1, 1)),), groups),
        )
        if not handler.is_supported(geometry):
            return xla(lhs, rhs, groups, padding)
        return operation.conv(geometry, lhs, rhs)

    by_onednn = _backend() == "onednn" and _undilated(lhs_dilation)
    direct = onednn if by_onednn else xla
    undilated = _undilated(lhs_dilation, rhs_dilation)
    if feature_group_count > 1 and not by_onednn:
        # Winograd's many products for each dense convolution would take long to compile.
        piece = partial(_direct_or_patches, direct, window_strides, padding)
        return _grouped(piece if undilated else direct, lhs, rhs, feature_group_count)
    if feature_group_count > 1 or not undilated:
        return direct(lhs, rhs, feature_group_count)
    return _dense(direct, window_strides, padding, lhs, rhs)


def _undilated(*dilations: Sequence[int] | None) -> bool:
    return all(set(dilation or (1,)) == {1} for dilation in dilations)


def _dense(
    direct: Callable[..., jax.Array],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    x: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    """Compute a convolution without groups or dilation by the implementation for its shape."""
    kernel, padding = im2col.without_padding(x, kernel, strides, padding)
    unpadded = tuple(padding) == ((0, 0), (0, 0))
    if kernel.shape[:2] == (1, 1) and unpadded:
        return _conv1x1(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
    same = tuple(strides) == (1, 1) and tuple(padding) == ((1, 1), (1, 1))
    wide = min(kernel.shape[2:]) >= MIN_WINOGRAD_CHANNELS
    if kernel.shape[:2] == (3, 3) and same and wide and _is_worth_compiling(x, kernel):
        return winograd.conv3x3(x, kernel)
    return _direct_or_patches(direct, strides, padding, x, kernel)


def _direct_or_patches(direct, strides, padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    pixels = math.prod(im2col.output_size(x, kernel, strides, padding))
    if 0 < len(x) * pixels < MIN_PIXELS or 0 < pixels <= SMALL_MAP_PIXELS:
        return im2col.conv(x, kernel, strides, padding)
    return direct(x, kernel, padding=padding)


def _is_worth_compiling(x: jax.Array, kernel: jax.Array) -> bool:
    pixels = math.prod(x.shape[:3])
    return pixels >= MIN_PIXELS and pixels * kernel.size >= MIN_MULTIPLY_ADDS


@jax.custom_vjp
def _conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply ``(N, H, W, C)`` by ``(C, K)``.

    XLA:CPU's kernel gradient of a 1×1 convolution takes three times as long as this product's.
    """
    return x @ kernel


def _conv1x1_backward(saved, gradient):
    x, kernel = saved
    # Without the barrier XLA recomputes the gradient, transposed, while reading it for the product.
    gradient = lax.optimization_barrier(gradient)
    kernel_gradient = winograd.transposed_times(
        *(a.reshape(-1, a.shape[-1]) for a in (x, gradient))
    )
    return lax.dot_general(gradient, kernel, (((3,), (1,)), ((), ()))), kernel_gradient


_conv1x1.defvjp(lambda x, kernel: (_conv1x1(x, kernel), (x, kernel)), _conv1x1_backward)


def _grouped(dense, x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """Compute a grouped convolution as dense ones of several groups each.

    Their kernels are block-diagonal. XLA:CPU's grouped convolution takes ten times as long, and its
    kernel gradient hundreds of times. Values that are not finite spread to the other groups
    of the same dense convolution.
    """
    height, width, inputs, channels = kernel.shape  # per group; in total
    outputs = channels // groups
    limit = max(GROUPED_CHANNELS, inputs)
    together = max(n for n in range(1, groups + 1) if groups % n == 0 and n * inputs <= limit)
    parts = groups // together
    kernel = kernel.reshape(height, width, inputs, parts, together, outputs)
    diagonal = jnp.eye(together, dtype=kernel.dtype)
    kernels = jnp.einsum("hwipgo,fg->phwfigo", kernel, diagonal)
    kernels = kernels.reshape(parts, height, width, together * inputs, together * outputs)
    pairs = zip(jnp.split(x, parts, axis=-1), kernels, strict=True)
    return jnp.concatenate([dense(piece, kernel) for piece, kernel in pairs], axis=-1)


def max_pool(x: jax.Array, padding: int, stride: int = 2) -> jax.Array:
    """Return the 3×3 max-pooling of ``(N, H, W, C)``, padded by 0 or 1 pixels."""
    if stride == 2 and (_uses_cpu_ops(x) or uses_custom_gradient(x)):
        return pooling.max_pool_custom_gradient(x, padding)
    return pooling.max_pool(x, padding, stride)


def relu(x: jax.Array) -> jax.Array:
    """Return the rectified linear unit; its gradient at 0 is 0.

    On CPUs this is a select instead of ``max(x, 0)``: XLA:CPU considers a maximum with a constant
    so cheap that it recomputes it in every kernel that reads it, together with the sum before it,
    back through the shortcuts of all preceding blocks. With the select a ResNet-20 trains 1.3 times
    as fast, and the deepest networks compile in minutes. On GPUs cuDNN fuses a maximum, the bias
    and the shortcut into convolutions when batch norm is folded.
    """
    if _forced_backend.value == "plain":
        return lax.platform_dependent(x, cpu=_relu_by_select, default=jax.nn.relu)
    return _relu_by_select(x) if _is_on_cpu() else jax.nn.relu(x)


def _relu_by_select(x: jax.Array) -> jax.Array:
    return jnp.where(x <= 0, 0, x)


def relu_of_sum(x: jax.Array) -> jax.Array:
    """Return :func:`relu` of ``F(x) + shortcut(x)``."""
    return _relu_with_output_gradient(x) if _backend() == "gpu" else relu(x)


@jax.custom_jvp
def _relu_with_output_gradient(x: jax.Array) -> jax.Array:
    """Compute the gradient from the output, which the next block keeps in memory anyway.

    A gradient computed from ``x`` would read F and the shortcut and add them again. XLA does the
    same for the condition ``y > 0``, which it rewrites to ``x > 0``; hence ``y <= 0``.
    """
    return relu(x)


@_relu_with_output_gradient.defjvp
def _relu_tangent(primals, tangents):
    y = _relu_with_output_gradient(*primals)
    return y, jnp.where(y <= 0, 0, *tangents)
