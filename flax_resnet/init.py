"""Initial variables without compilation.

``model.init`` works as for any linen module, but runs the network once to infer its shapes and
compiles all random number generation: 6–20 s on a CPU. Here abstract evaluation infers the shapes
and NumPy samples from the modules' own initializers: about a second for resnet50, and the same
numbers on every backend.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flax_resnet.layers import VarianceScaling


def init_variables(model: nn.Module, seed: int, image_shape: Sequence[int]) -> dict[str, Any]:
    """Return initial ``{"params", "batch_stats"}`` as float32 NumPy arrays.

    The variable ``NAME`` of a module is initialized by the module's field ``NAME_init``, such as
    ``kernel_init``. Initializers other than zeros, ones and
    :class:`~flax_resnet.layers.VarianceScaling` are called as JAX functions. Variables without
    such a field get the value that ``model.init`` gives them; these are compiled.

    Args:
      model: the network. With group norm there are no ``batch_stats``.
      seed: determines all values.
      image_shape: ``(H, W, C)``.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    modules, shapes = trace_modules(model, images)
    # Every variable has its own stream: adding a layer leaves the others' numbers unchanged.
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    streams = np.random.SeedSequence(seed).spawn(len(leaves))
    values: dict[int, np.ndarray] = {}
    for number, ((path, leaf), stream) in enumerate(zip(leaves, streams, strict=True)):
        _, *parents, name = (entry.key for entry in path)
        initializer = getattr(modules.get(tuple(parents)), f"{name}_init", None)
        if initializer is not None:
            values[number] = _sample(initializer, np.random.default_rng(stream), leaf.shape)
    if others := [number for number in range(len(leaves)) if number not in values]:

        def initialize(key: jax.Array, images: jax.Array) -> list[jax.Array]:
            initial = jax.tree.leaves(model.init(key, images))
            return [initial[number] for number in others]  # XLA removes whatever the rest needs

        zeros = jnp.zeros(images.shape, images.dtype)
        compiled = jax.jit(initialize)(jax.random.key(seed), zeros)
        values |= dict(zip(others, map(np.array, compiled), strict=True))
    return jax.tree_util.tree_unflatten(structure, [values[n] for n in range(len(leaves))])


def trace_modules(
    model: nn.Module, images: jax.ShapeDtypeStruct
) -> tuple[dict[tuple[str, ...], nn.Module], Any]:
    """Return a network's modules by their paths, and the shapes of its variables."""
    modules = {}

    def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        modules[context.module.path] = context.module
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        # A function of its own: a cached trace of model.init would skip the interceptor.
        shapes = jax.eval_shape(lambda *args: model.init(*args), _abstract_key(), images)
    return modules, shapes


def abstract_variables(model: nn.Module, images: jax.ShapeDtypeStruct) -> Any:
    """Return the shapes and dtypes of a network's variables. Nothing is compiled."""
    return jax.eval_shape(model.init, _abstract_key(), images)


def _abstract_key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(jax.random.key, 0)  # a concrete key would compile two programs


def _sample(initializer: Callable, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(initializer, VarianceScaling):
        return initializer.sample(rng, shape)
    if initializer in (nn.initializers.zeros, nn.initializers.ones):
        return np.full(shape, initializer is nn.initializers.ones, np.float32)
    key = jax.random.key(int(rng.integers(2**31)))
    return np.array(initializer(key, shape, jnp.float32))
