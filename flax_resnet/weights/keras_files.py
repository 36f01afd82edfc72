"""Keras's ``.h5``, ``.weights.h5`` and ``.keras`` files, read by h5py.

Tensors come out as ``LAYER/VARIABLE``: ``conv2_block1_1_conv/kernel``,
``conv2_block1_1_bn/moving_mean``. ``.weights.h5`` numbers its groups by class
(``conv2d_1``) and its variables by position; the layer's own name is an attribute.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.resnet import ResNet
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

# Keras's batch norm divides by sqrt(var + 1.001e-5) in its ResNets.
KERAS_EPSILON = 1.001e-5

# What the files that Keras publishes call the last layer, from before its renaming.
_OLD_NAMES = {"probs": "predictions"}

_NUMBERED = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_keras(path: Path) -> WeightFile:
    """Reads an HDF5 file of Keras 2 or 3, or a ``.keras`` archive.

    Raises WeightsError where h5py is missing or the file refers to another, and what
    zipfile and h5py raise where it is damaged.
    """
    try:
        import h5py
    except ImportError:
        raise WeightsError(
            f"reading {path} needs h5py: pip install 'flax-resnet[pretrained]'"
        ) from None
    source: Any = path
    kind = "Keras HDF5"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # Keras never compresses; a compressed entry could unfold to any size.
            if archive.getinfo("model.weights.h5").compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"{path} is compressed, which Keras never does: save it again")
            source, kind = io.BytesIO(archive.read("model.weights.h5")), "Keras archive"
    tensors: dict[str, Tensor] = {}

    def visit(_: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset) or node.name.startswith("/optimizer"):
            return
        if node.external or node.is_virtual:
            raise WeightsError(f"{path}: {node.name} refers to another file: refused")
        name = _name(node)
        if name is not None:
            tensors[name] = Tensor(tuple(node.shape), node.dtype, lambda: node[()])

    # Open while any tensor may still be read: the datasets hold on to it.
    h5py.File(source, "r").visititems(visit)
    return WeightFile(kind, tensors)


def _name(dataset: Any) -> str | None:
    parent, _, variable = dataset.name.rpartition("/")
    if not parent.endswith("/vars"):  # as Keras 2 wrote it: …/LAYER/kernel:0
        layer = parent.rpartition("/")[2]
        return f"{_OLD_NAMES.get(layer, layer)}/{variable.partition(':')[0]}"
    group = dataset.parent
    variables = _NUMBERED.get(len(group))
    if variables is None or not variable.isdigit() or int(variable) >= len(variables):
        return None
    layer = group.attrs.get("name", parent.split("/")[-2])
    return f"{layer}/{variables[int(variable)]}"


def fold(tensors: dict[str, Tensor], model: ResNet) -> dict[str, Tensor]:
    """Takes a convolution's bias into the batch norm that follows it.

    ``norm(conv(x) + b)`` with mean ``m`` equals ``norm(conv(x))`` with mean ``m - b``. The
    norm of ``NAME_conv`` is ``NAME_bn``; where there is none (the pre-activation nets' stem,
    shortcuts and last convolutions) the bias stays, as it does for a network that has biases
    everywhere. Keras's epsilon, where it differs from the network's, goes into the variance.
    """
    folded = dict(tensors)
    for name, tensor in tensors.items():
        layer, _, variable = name.rpartition("/")
        norm = f"{layer.removesuffix('_conv')}_bn"
        mean = tensors.get(f"{norm}/moving_mean")
        if variable == "bias" and mean is not None and model.conv_bias != "all":
            if tensor.shape == mean.shape:
                folded[f"{norm}/moving_mean"] = _changed(mean, lambda m, b=tensor: m - b.read())
                del folded[name]
        if variable == "moving_variance" and model.norm_epsilon != KERAS_EPSILON:
            folded[name] = _changed(tensor, lambda v: v + (KERAS_EPSILON - model.norm_epsilon))
    return folded


def _changed(tensor: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    return Tensor(tensor.shape, tensor.dtype, lambda: change(tensor.read()))


def strides_fit(model: ResNet) -> bool:
    """Whether the network halves its maps where Keras's do, of which the names tell nothing."""
    if model.preactivation:
        return model.stride_block == "last"
    return model.stride_block == "first" and (
        model.stride_conv == "1x1" or model.block != "bottleneck" or len(model.stage_sizes) < 2
    )
