"""The network's leaves as a flat table, and as the tree that Flax takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.resnet import ResNet

Path = tuple[str, ...]  # ("params", "stage1_block1", "conv1", "kernel")


def expected_leaves(model: ResNet, channels: int = 3) -> dict[Path, tuple[int, ...]]:
    """The network's leaves and their shapes, for images of so many channels."""
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flat(shapes).items()}


def flat(tree: Any) -> dict[Path, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in leaves}


def nested(leaves: Mapping[Path, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, last), leaf in leaves.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def title(model: str | ResNet) -> str:
    if isinstance(model, str):
        return model
    return f"ResNet of {'-'.join(map(str, model.stage_sizes))} {model.block} blocks"
