"""A network's variables as a flat table of leaves."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.init import abstract_variables
from flax_resnet.own_layers import label
from flax_resnet.variants import create_model

Path = tuple[str, ...]  # ("params", "stage1_block1", "conv1", "kernel")

FIRST_CONVS = ("stem_conv", "stem_conv1")  # the convolution applied to the images


def flatten(tree: Any) -> dict[Path, Any]:
    """Return nested dictionaries as one dictionary from paths to leaves."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in leaves}


def leaf_shapes(model: nn.Module, channels: int = 3) -> dict[Path, tuple[int, ...]]:
    """Return the shapes of the network's variables for images with this number of channels."""
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    shapes = abstract_variables(model, images)
    return {path: leaf.shape for path, leaf in flatten(shapes).items()}


def classifier_path(model: nn.Module) -> Path:
    """Return the path of the layer whose last axis is the classes."""
    return ("head", "classifier") if find_backbone(model)[1] else ("head",)


def network_of_leaves(name: str, leaves: Mapping[Path, Any]) -> nn.Module:
    """Return the named network with the number of classes and the heads of its variables.

    Args:
      name: of the network.
      leaves: its variables; without a head's, the network has its own number of classes.
    """
    network = create_model(name)
    kernel = leaves.get(("params", *classifier_path(network), "kernel"))
    fields = {} if kernel is None else {"num_classes": kernel.shape[-1]}
    if any(leaf[1] == "aux_head" for leaf in leaves):
        fields["aux_head"] = True
    return create_model(name, **fields)


def stem_kernel(leaves: Iterable[Path]) -> Path | None:
    """Return the path of the only kernel whose shape depends on the number of image channels."""
    stems = (p for p in leaves if len(p) >= 3 and p[-1] == "kernel" and p[-2] in FIRST_CONVS)
    return next(stems, None)


def describe_model(model: str | nn.Module) -> str:
    """Return a network's name for messages."""
    if isinstance(model, str):
        return model
    backbone, path = find_backbone(model)
    if path:
        return f"{label(type(model))} with head {model.head!r} on a {describe_model(backbone)}"
    return f"ResNet of {'-'.join(map(str, model.stage_sizes))} {label(model.block)} blocks"
