"""The network's leaves as a flat table, and as the tree that Flax takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from flax_resnet.resnet import ResNet

Path = tuple[str, ...]  # ("params", "stage1_block1", "conv1", "kernel")

_STEMS = ("stem_conv", "stem_conv1")


def leaf_shapes(model: ResNet, channels: int = 3) -> dict[Path, tuple[int, ...]]:
    """The network's leaves and their shapes, for images of so many channels."""
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flat(shapes).items()}


def flat(tree: Any) -> dict[Path, Any]:
    """A tree of dictionaries as one from paths to leaves."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in leaves}


def stem_kernel(leaves: Iterable[Path]) -> Path | None:
    """The kernel that meets the images; the only one whose shape depends on their channels."""
    stems = (p for p in leaves if len(p) == 3 and p[2] == "kernel" and p[1] in _STEMS)
    return next(stems, None)


def title(model: str | ResNet) -> str:
    """What to call a network in a message."""
    if isinstance(model, str):
        return model
    return f"ResNet of {'-'.join(map(str, model.stage_sizes))} {model.block} blocks"
