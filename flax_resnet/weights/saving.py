"""Our variables under another library's names."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from flax_resnet.resnet import ResNet
from flax_resnet.variants import create_model
from flax_resnet.weights.files import write_safetensors
from flax_resnet.weights.leaves import Path, flat, leaf_shapes, stem_kernel, title
from flax_resnet.weights.names import SAVED, unnamed_fields, unshared_fields
from flax_resnet.weights.report import some
from flax_resnet.weights.tensors import WeightsError, is_float

_log = logging.getLogger(__name__)


def save_variables(
    variables: Mapping[str, Any], path: str | os.PathLike[str], model: str | ResNet, layout: str
) -> None:
    """See :func:`flax_resnet.save_weights`."""
    if layout not in SAVED:
        raise WeightsError(f"unknown layout {layout!r}; valid are {', '.join(SAVED)}")
    if not str(path).endswith(".safetensors"):
        raise WeightsError(f"weights are saved as .safetensors, not as {path}")
    leaves = {p: _saveable(p, v) for p, v in flat(variables).items()}
    stem = stem_kernel(leaves)
    if stem is None or leaves[stem].ndim != 4:
        raise WeightsError(
            "save_weights needs variables as {'params': …, 'batch_stats': …} of one device, with"
            " params/stem_conv/kernel of shape (H, W, in, out)"
        )
    head = leaves.get(("params", "head", "kernel"))
    if isinstance(model, str):
        network = create_model(model, **({} if head is None else {"num_classes": head.shape[-1]}))
    else:
        network = model
    expected = leaf_shapes(network, leaves[stem].shape[2])
    wrong = [
        f"{'/'.join(p)} {leaves[p].shape if p in leaves else 'missing'} for {expected.get(p)}"
        for p in expected | leaves
        if p not in leaves or leaves[p].shape != expected.get(p)
    ]
    if wrong:
        raise WeightsError(f"the variables are not those of {title(model)}: {some(wrong)}")
    target = SAVED[layout]
    arrays = {}
    for leaf, value in leaves.items():
        name = target.saved(network, leaf)
        if target.torch and leaf[-1] == "kernel":
            value = _to_torch(value)
            if target.is_pointwise(network, leaf):
                value = value[..., None, None]
        arrays[name] = value
        if name.endswith(".running_var"):  # PyTorch counts its steps too; evaluation ignores it
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            arrays[counter] = np.zeros((), np.int64)
    metadata = {"format": "pt" if target.torch else "flax", "layout": layout}
    metadata["fields"] = json.dumps(unnamed_fields(network))
    if isinstance(model, str):
        metadata["model"] = model
    if unshared := unshared_fields(target, network):
        _log.warning(
            "%s: no network of %s has %s, so that one with these names gives other logits or"
            " cannot take them",
            path,
            layout,
            ", ".join(unshared),
        )
    write_safetensors(path, arrays, metadata)


def _to_torch(kernel: np.ndarray) -> np.ndarray:
    order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    return np.ascontiguousarray(kernel.transpose(order))


def _saveable(path: Path, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if not is_float(array.dtype):
        raise WeightsError(f"{'/'.join(path)} is {array.dtype}, not floating point")
    array = np.ascontiguousarray(array.astype(np.float32))
    if not np.isfinite(array).all():
        raise WeightsError(f"{'/'.join(path)} has values that are not finite; nothing was saved")
    return array
