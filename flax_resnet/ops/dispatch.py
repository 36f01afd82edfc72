"""Which form of an operation a backend runs fastest, each form equal to XLA's own.

:func:`conv_general_dilated`, :func:`max_pool`, :func:`relu` and :func:`relu_of_sum` are what the
networks call, and batch norm asks :func:`uses_custom_gradient`. The choice is made when a function is
traced. On CPUs convolutions and pooling in float32 take, by their shapes, the forms of
:mod:`~flax_resnet.ops.winograd`, :mod:`~flax_resnet.ops.narrow`, :mod:`~flax_resnet.ops.im2col`,
:mod:`~flax_resnet.ops.pooling` and this module (measured by ``benchmarks/train_step.py`` and
``conv_layers.py``). On GPUs batch norm, pooling and the ReLU after a sum take gradients that read
and write less memory (counted by ``benchmarks/memory_traffic.py``). Elsewhere, and inside
:func:`use_xla_ops`, all is XLA's own.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from flax_resnet.ops import im2col, narrow, pooling, winograd

# Where the forms of 3×3 convolutions and the time to compile them pay: channels on either side,
# pixels of all images, and multiply-adds of the layer.
_MOST_NARROW, _LEAST_WINOGRAD = 16, 32
_LEAST_PIXELS, _LEAST_WORK = 128, 5e7
# Pixels of a map that XLA convolves slowly in a batch of any size; large ones go to Winograd.
_SMALL_MAP = 4
_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_GROUPED = 32  # channels of the dense convolutions that take a grouped one's place

FORMS = ("cpu", "gpu", "tpu", "plain")
# Part of JAX's caches' key: what was traced outside is traced anew inside.
_forms = jax.make_user_context("")


def use_xla_ops() -> contextlib.AbstractContextManager:
    """Within ``with plain():`` whatever is called uses XLA's own operations, on every backend.

    To compare with, for forward-mode derivatives (``jax.jvp``: most fast forms know reverse mode
    alone), and for what another backend than the one that traces will run. The ReLU alone has,
    where it runs, the form of that backend.
    """
    return _forms("plain")


def use_backend(backend: str) -> contextlib.AbstractContextManager:
    """Within it whatever is called takes the forms of ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    To compile for a backend that is not here, and to measure forms where they are not the default.
    ``"plain"`` is :func:`use_xla_ops`; other names raise ValueError.
    """
    if backend not in FORMS:
        raise ValueError(
            f"there are no forms of {backend!r}; there are those of {', '.join(FORMS)}"
        )
    return _forms(backend)


def _backend() -> str:
    return _forms.value or jax.default_backend()


def uses_custom_gradient(x: jax.Array) -> bool:
    """Whether norm and pooling of ``x`` take their hand-written gradients as GPUs do.

    They read and write less memory. On CPUs norm's gains nothing, and a TPU's compiler expects to
    take longer (benchmarks/RESULTS.md).
    """
    return _backend() == "gpu" and _ordinary(x)


def _fast(*arrays: jax.Array) -> bool:
    """Whether the forms for CPUs are taken: in float32, where they were measured."""
    return _backend() == "cpu" and all(
        array.dtype == jnp.float32 and _ordinary(array) for array in arrays
    )


def _ordinary(array: jax.Array) -> bool:
    """Neither of a shape that ``jax.export`` leaves open, nor in a ``jax.shard_map`` that keeps
    account of what varies over its axes, as hand-written gradients do not.
    """
    kind = jax.typeof(array)
    account = getattr(kind, "manual_axis_type", None)  # called vma in other releases of JAX
    varies = bool(getattr(account, "varying", None) or getattr(kind, "vma", None))
    return not varies and all(isinstance(size, int) for size in array.shape)


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
    """``jax.lax.conv_general_dilated``, for ``nn.Conv(conv_general_dilated=…)``."""

    def direct(lhs, rhs, groups=1, padding=padding):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count=groups,
            precision=precision,
        )

    images = lhs.ndim == rhs.ndim == 4 and dimension_numbers == _NHWC
    explicit = not isinstance(padding, str) and precision is None
    if not (images and explicit and _fast(lhs, rhs)):
        return direct(lhs, rhs, feature_group_count)
    undilated = all(set(dilation or (1,)) == {1} for dilation in (lhs_dilation, rhs_dilation))
    if feature_group_count > 1:
        # Winograd's many products, for each piece, would take long to compile.
        piece = partial(_direct_or_patches, direct, window_strides, padding)
        return _grouped(piece if undilated else direct, lhs, rhs, feature_group_count)
    return _dense(direct, window_strides, padding, lhs, rhs) if undilated else direct(lhs, rhs)


def _dense(
    direct: Callable[..., jax.Array],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    x: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    """A convolution without groups or dilation in the form that its shape asks for."""
    kernel, padding = im2col.without_padding(x, kernel, strides, padding)
    unpadded = tuple(padding) == ((0, 0), (0, 0))
    if kernel.shape[:2] == (1, 1) and unpadded:
        return _conv1x1(x[:, :: strides[0], :: strides[1]], kernel[0, 0])
    same = tuple(strides) == (1, 1) and tuple(padding) == ((1, 1), (1, 1))
    if kernel.shape[:2] == (3, 3) and same and _worth_it(x, kernel):
        if max(kernel.shape[2:]) <= _MOST_NARROW:
            return narrow.conv3x3(x, kernel)
        if min(kernel.shape[2:]) >= _LEAST_WINOGRAD:
            return winograd.conv3x3(x, kernel)
    return _direct_or_patches(direct, strides, padding, x, kernel)


def _direct_or_patches(direct, strides, padding, x: jax.Array, kernel: jax.Array) -> jax.Array:
    pixels = math.prod(im2col.output_size(x, kernel, strides, padding))
    if 0 < len(x) * pixels < _LEAST_PIXELS or 0 < pixels <= _SMALL_MAP:
        return im2col.conv(x, kernel, strides, padding)
    return direct(x, kernel, padding=padding)


def _worth_it(x: jax.Array, kernel: jax.Array) -> bool:
    pixels = math.prod(x.shape[:3])
    return pixels >= _LEAST_PIXELS and pixels * kernel.size >= _LEAST_WORK


@jax.custom_vjp
def _conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``(N, H, W, C)`` times ``(C, K)``.

    XLA:CPU's gradient by a convolution's 1×1 kernel takes three times as long as this product.
    """
    return x @ kernel


def _conv1x1_backward(saved, gradient):
    x, kernel = saved
    # Without the barrier XLA computes the gradient anew, transposed, on its way into the product.
    gradient = lax.optimization_barrier(gradient)
    by_kernel = winograd.transposed_times(*(a.reshape(-1, a.shape[-1]) for a in (x, gradient)))
    return lax.dot_general(gradient, kernel, (((3,), (1,)), ((), ()))), by_kernel


_conv1x1.defvjp(lambda x, kernel: (_conv1x1(x, kernel), (x, kernel)), _conv1x1_backward)


def _grouped(dense, x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """A grouped convolution as dense ones of a few groups each, whose kernels are mostly zero.

    XLA:CPU's own takes ten times as long, and its gradient by the kernel hundreds of times. What
    is not finite in one group spreads to those beside it.
    """
    height, width, inputs, channels = kernel.shape  # of a group; of all
    outputs = channels // groups
    together = max(
        n for n in range(1, groups + 1) if groups % n == 0 and n * inputs <= max(_GROUPED, inputs)
    )
    parts = groups // together
    kernel = kernel.reshape(height, width, inputs, parts, together, outputs)
    same = jnp.eye(together, dtype=kernel.dtype)
    kernels = jnp.einsum("hwipgo,fg->phwfigo", kernel, same)
    kernels = kernels.reshape(parts, height, width, together * inputs, together * outputs)
    pairs = zip(jnp.split(x, parts, axis=-1), kernels, strict=True)
    return jnp.concatenate([dense(piece, kernel) for piece, kernel in pairs], axis=-1)


def max_pool(x: jax.Array, padding: int) -> jax.Array:
    """3×3 max-pooling with stride 2 of ``(N, H, W, C)``, padded by 0 or 1 of the least number."""
    few_passes = _fast(x) or uses_custom_gradient(x)
    return (pooling.max_pool_first if few_passes else pooling.max_pool)(x, padding)


def relu(x: jax.Array) -> jax.Array:
    """Rectified linear unit; its gradient at 0 is 0.

    On CPUs a choice and not ``max(x, 0)``: XLA:CPU takes a maximum with a constant for so cheap
    that it computes it again in every kernel that reads it, and with it the sum before it, back
    through the shortcuts of block after block. Without that a ResNet-20 trains 1.3 times as fast,
    and the deepest networks compile in minutes. A maximum is what cuDNN's convolutions have in
    them, with a bias and the shortcut, as they are where batch norm is folded.
    """
    if _forms.value == "plain":
        return lax.platform_dependent(x, cpu=_choice, default=jax.nn.relu)
    return _choice(x) if _backend() == "cpu" else jax.nn.relu(x)


def _choice(x: jax.Array) -> jax.Array:
    return jnp.where(x <= 0, 0, x)


def relu_of_sum(x: jax.Array) -> jax.Array:
    """:func:`relu` of ``F(x) + shortcut(x)``."""
    return _relu_by_result(x) if _backend() == "gpu" else relu(x)


@jax.custom_jvp
def _relu_by_result(x: jax.Array) -> jax.Array:
    """The gradient asks the result, which the next block keeps anyway, where it is 0.

    Asked of ``x`` it would add F and the shortcut again, and read both: which XLA also did if
    asked whether the result is greater than 0, where ``x`` is.
    """
    return relu(x)


@_relu_by_result.defjvp
def _relu_tangent(primals, tangents):
    y = _relu_by_result(*primals)
    return y, jnp.where(y <= 0, 0, *tangents)
