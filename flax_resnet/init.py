"""Initial variables without compiling anything.

``model.init`` works as for any linen module, but runs the network once to find its
shapes and compiles every random draw: 6–20 s on a CPU. Here the shapes are found by
abstract evaluation and the values drawn by NumPy: the same distributions, in about a
second for resnet50, and the same numbers on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.resnet import ResNet


def init_variables(model: ResNet, seed: int, image_shape: Sequence[int]) -> dict[str, Any]:
    """Draws ``{"params", "batch_stats"}`` as float32 NumPy arrays; group norm has no statistics.

    Args:
      model: the network.
      seed: the draw is a function of it and of nothing else.
      image_shape: ``(H, W, C)``.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    # Every leaf draws from its own stream: adding a layer leaves the others as they were.
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    streams = np.random.SeedSequence(seed).spawn(len(leaves))
    values = [
        _draw(model, [entry.key for entry in path], leaf.shape, np.random.default_rng(stream))
        for (path, leaf), stream in zip(leaves, streams, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, values)


def _draw(
    model: ResNet, path: list[str], shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    *_, layer, leaf = path
    if model.zero_init_last and (layer, leaf) == _last_of_block(model):
        return np.zeros(shape, np.float32)
    if leaf == "kernel" and len(shape) == 4:  # layers.he_normal
        fan_out = shape[0] * shape[1] * shape[3]
        return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_out))
    if leaf == "kernel":  # layers.linear
        bound = 1 / math.sqrt(shape[0])
        return rng.uniform(-bound, bound, shape).astype(np.float32)
    return np.full(shape, 1 if leaf in ("scale", "var") else 0, np.float32)  # bias and mean


def _last_of_block(model: ResNet) -> tuple[str, str]:
    """The layer and leaf that ``zero_init_last`` sets to zero in every block."""
    depth = {"residual": 2, "bottleneck": 3}[model.block]
    return (f"conv{depth}", "kernel") if model.preactivation else (f"norm{depth}", "scale")
