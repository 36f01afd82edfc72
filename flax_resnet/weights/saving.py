"""Write variables under another library's tensor names."""

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from flax_resnet.text import one_line
from flax_resnet.weights.formats.safetensors_files import write_safetensors
from flax_resnet.weights.leaves import (
    Path,
    describe_model,
    flatten,
    leaf_shapes,
    network_of_leaves,
    stem_kernel,
)
from flax_resnet.weights.naming.layouts import SAVED, metadata_fields, unsupported_fields
from flax_resnet.weights.report import first_names
from flax_resnet.weights.tensors import WeightsError, is_float

_log = logging.getLogger(__name__)


def save_weights(
    model: str | nn.Module,
    variables: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    layout: str = "torchvision",
) -> None:
    """Write variables to a ``.safetensors`` file under another library's names, in float32.

    The write is atomic. PyTorch loads the file by
    ``net.load_state_dict(safetensors.torch.load_file(path), strict=True)``. A warning is logged
    if the layout's library has no network with the same fields. The file's metadata has the
    fields that its names do not show, which :func:`load_weights` compares.

    Args:
      model: the name or network that the variables belong to.
      variables: ``{"params", "batch_stats"}`` of one device, not replicated.
      path: the file; must end in ``.safetensors``.
      layout: ``"torchvision"``, ``"timm"``, ``"huggingface"``, or ``"flax"`` for the names of
        this library.

    Raises:
      WeightsError: the variables do not match the network or are not finite, the layout has no
        name for one of its layers, or the file cannot be written.
    """
    if not isinstance(model, (str, nn.Module)):
        raise WeightsError(
            "save_weights takes the network or its name, the variables and the path, in this order;"
            f" its first argument is of type {type(model).__name__}"
        )
    if layout not in SAVED:
        raise WeightsError(f"unknown layout {layout!r}; valid are {', '.join(SAVED)}")
    if not str(path).endswith(".safetensors"):
        raise WeightsError(f"weights are saved as .safetensors, not as {path}")
    leaves = {p: _checked(p, v) for p, v in flatten(variables).items()}
    stem = stem_kernel(leaves)
    if stem is None or leaves[stem].ndim != 4:
        raise WeightsError(
            "save_weights needs variables as {'params': …, 'batch_stats': …} of one device, with"
            " params/stem_conv/kernel of shape (H, W, in, out)"
        )
    network = network_of_leaves(model, leaves) if isinstance(model, str) else model
    expected = leaf_shapes(network, leaves[stem].shape[2])
    wrong = [
        f"{'/'.join(p)} {leaves[p].shape if p in leaves else 'missing'} for {expected.get(p)}"
        for p in expected | leaves
        if p not in leaves or leaves[p].shape != expected.get(p)
    ]
    if wrong:
        raise WeightsError(
            f"the variables do not match {describe_model(model)}: {first_names(wrong)}"
        )
    target = SAVED[layout]
    arrays = {}
    for leaf, value in leaves.items():
        name = target.file_name(network, leaf)
        if target.torch and leaf[-1] == "kernel":
            value = np.ascontiguousarray(value.transpose((3, 2, 0, 1) if value.ndim == 4 else None))
            if target.is_pointwise(network, leaf):
                value = value[..., None, None]
        arrays[name] = value
        if name.endswith(".running_var"):  # required by strict=True; unused in evaluation
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            arrays[counter] = np.zeros((), np.int64)
    metadata = {"format": "pt" if target.torch else "flax", "layout": layout}
    metadata["fields"] = json.dumps(metadata_fields(network))
    if isinstance(model, str):
        metadata["model"] = model
    if unsupported := unsupported_fields(target, network):
        _log.warning(
            "%s: no network of %s has %s, so one with these names gives different logits or cannot"
            " load them",
            one_line(path),
            layout,
            ", ".join(unsupported),
        )
    write_safetensors(path, arrays, metadata)


def _checked(path: Path, value: Any) -> np.ndarray:
    """Return a leaf as a contiguous float32 array."""
    array = np.asarray(value)
    if not is_float(array.dtype):
        raise WeightsError(f"{'/'.join(path)} is {array.dtype}, not floating point")
    array = np.ascontiguousarray(array.astype(np.float32))
    if not np.isfinite(array).all():
        raise WeightsError(f"{'/'.join(path)} has values that are not finite; nothing was saved")
    return array
