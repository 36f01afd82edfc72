"""Doubts that a network is that of a file, from what its tensors do not show."""

import json
from typing import Any

from flax import linen as nn

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.text import truncate
from flax_resnet.weights.naming.layouts import (
    HUGGINGFACE,
    TIMM,
    TRANSFORMERS_FLAX,
    DetectedLayout,
    metadata_fields,
)
from flax_resnet.weights.tensors import WeightFile


def find_doubts(network: nn.Module, file: WeightFile, detected: DetectedLayout) -> tuple[str, ...]:
    """Return differences from the file's probable network that its tensors' names do not show."""
    is_ours = "layout" in file.metadata  # written by save_weights
    ours, theirs = metadata_fields(network), _saved_fields(file) if is_ours else file.fields
    different = tuple(
        f"the file is from a network with {field}={truncate(repr(theirs[field]))}, this one has"
        f" {ours[field]!r}: its logits will differ"
        for field in ours
        if field in theirs and theirs[field] != ours[field]
    )
    if different or is_ours or "stride_conv" in theirs:
        return different
    model, _ = find_backbone(network)
    in_1x1 = model.block == "bottleneck" and model.stride_conv == "1x1"
    torch_strides = detected.layout in (TIMM, HUGGINGFACE, TRANSFORMERS_FLAX)
    if torch_strides and in_1x1 and not model.preactivation:
        return (
            "torchvision, timm and Hugging Face have the stride of a bottleneck in its 3×3"
            " convolution, this network in the first 1×1: use stride_conv='3x3' for their weights",
        )
    return ()


def _saved_fields(file: WeightFile) -> dict[str, Any]:
    """Return the network's fields that save_weights wrote; empty if absent or invalid."""
    try:
        fields = json.loads(file.metadata.get("fields", "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    scalars = (str, int, float, type(None))  # printing nested lists could overflow the stack
    return {key: value for key, value in fields.items() if isinstance(value, scalars)}
