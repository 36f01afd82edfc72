"""Read Keras's ``.h5``, ``.weights.h5`` and ``.keras`` files with h5py.

Tensors are named ``LAYER/VARIABLE``: ``conv2_block1_1_conv/kernel``,
``conv2_block1_1_bn/moving_mean``. ``.weights.h5`` numbers its groups by class
(``conv2d_1``) and its variables by position; the layer's name is an attribute.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.resnet import ResNet
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

# Batch norm in Keras's ResNets divides by sqrt(var + 1.001e-5).
KERAS_EPSILON = 1.001e-5

# The old name of the last layer, which Keras's published files still have.
_OLD_NAMES = {"probs": "predictions"}

_NUMBERED = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_keras(path: Path) -> WeightFile:
    """Read an HDF5 file of Keras 2 or 3, or a ``.keras`` archive.

    Raises:
      WeightsError: h5py is not installed, or the file refers to another file.
      Exception: the file is corrupt; whatever zipfile and h5py raise.
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
            # Keras never compresses, and a compressed entry could expand to any size.
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

    # The datasets keep the file open as long as tensors may be read.
    h5py.File(source, "r").visititems(visit)
    return WeightFile(kind, tensors)


def _name(dataset: Any) -> str | None:
    """Return ``LAYER/VARIABLE``, or None if the dataset is not a variable of a layer in use."""
    parent, _, variable = dataset.name.rpartition("/")
    if not parent.endswith("/vars"):  # Keras 2: …/LAYER/kernel:0
        layer = parent.rpartition("/")[2]
        return f"{_OLD_NAMES.get(layer, layer)}/{variable.partition(':')[0]}"
    group = dataset.parent
    variables = _NUMBERED.get(len(group))
    if variables is None or not variable.isdigit() or int(variable) >= len(variables):
        return None
    layer = group.attrs.get("name", parent.split("/")[-2])
    return f"{layer}/{variables[int(variable)]}"


def fold(tensors: dict[str, Tensor], model: ResNet) -> dict[str, Tensor]:
    """Fold convolution biases and Keras's epsilon into the batch norms that follow.

    ``norm(conv(x) + b)`` with mean ``m`` equals ``norm(conv(x))`` with mean ``m - b``. The norm
    of ``NAME_conv`` is ``NAME_bn``. Without one (stem, shortcuts and last convolutions of
    pre-activation networks) the bias is kept, as for networks with biases everywhere. The
    variance absorbs the difference between Keras's epsilon and the network's.
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


def strides_match(model: ResNet) -> bool:
    """Return whether the network downsamples where Keras's do, which names do not show."""
    if model.preactivation:
        return model.stride_block == "last"
    return model.stride_block == "first" and (
        model.stride_conv == "1x1" or model.block != "bottleneck" or len(model.stage_sizes) < 2
    )
