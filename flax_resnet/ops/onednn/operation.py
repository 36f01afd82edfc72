"""Convolution by oneDNN as an operation of JAX, with derivatives of any order in reverse mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.ops.onednn.convolutions import Geometry
from flax_resnet.ops.onednn.handler import TARGET, prepare


def conv(geometry: Geometry, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve float32 ``(N, H, W, C)`` with ``(height, width, C / groups, outputs)``."""
    return _forward(geometry, images, kernel)


def _call(kind: str, geometry: Geometry, shape: tuple[int, ...], *arrays: jax.Array) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(TARGET, result, vmap_method="sequential")
    return call(*arrays, program=np.int64(prepare(kind, geometry)))


# A convolution and its gradients are linear in both of their arguments; so each is the other's
# derivative.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(geometry, images, kernel):
    return _call("forward", geometry, geometry.outputs, images, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _image_gradient(geometry, outputs, kernel):
    return _call("image_gradient", geometry, geometry.images, outputs, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geometry, images, outputs):
    return _call("kernel_gradient", geometry, geometry.kernel, images, outputs)


def _save(function):
    return lambda geometry, *arrays: (function(geometry, *arrays), arrays)


def _of_forward(geometry, arrays, outputs):
    images, kernel = arrays
    return _image_gradient(geometry, outputs, kernel), _kernel_gradient(geometry, images, outputs)


def _of_image_gradient(geometry, arrays, images):
    outputs, kernel = arrays
    return _forward(geometry, images, kernel), _kernel_gradient(geometry, images, outputs)


def _of_kernel_gradient(geometry, arrays, kernel):
    images, outputs = arrays
    return _image_gradient(geometry, outputs, kernel), _forward(geometry, images, kernel)


_forward.defvjp(_save(_forward), _of_forward)
_image_gradient.defvjp(_save(_image_gradient), _of_image_gradient)
_kernel_gradient.defvjp(_save(_kernel_gradient), _of_kernel_gradient)
