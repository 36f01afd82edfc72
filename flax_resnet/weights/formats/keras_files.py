"""Read Keras's ``.h5``, ``.weights.h5`` and ``.keras`` files with h5py.

Tensors are named ``LAYER/VARIABLE``: ``conv2_block1_1_conv/kernel``,
``conv2_block1_1_bn/moving_mean``. ``.weights.h5`` numbers its groups by class
(``conv2d_1``) and its variables by position; the layer's name is an attribute.
"""

import functools
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnet.images.pixels import RGB_STD
from flax_resnet.resnet import ResNet
from flax_resnet.text import truncate
from flax_resnet.weights.formats.limits import max_entries
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

# Batch norm in Keras's ResNets divides by sqrt(var + 1.001e-5).
KERAS_EPSILON = 1.001e-5

# Keras's ResNet v1 takes BGR in 0…255 minus these means, here of RGB in 0…1.
RGB_MEAN_V1 = (123.68 / 255, 116.779 / 255, 103.939 / 255)

_STEM = "conv1_conv/kernel"

# The old name of the last layer, which Keras's published files still have.
_OLD_NAMES = {"probs": "predictions"}

_MAX_LINK = 500  # bytes of the name of a group or dataset, characters of a layer's
_MAX_DEPTH = 32  # of groups in groups
_MAX_CHUNK = 2**26  # bytes

_NUMBERED = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read_keras(path: Path, archive: zipfile.ZipFile | None = None) -> WeightFile:
    """Read an HDF5 file of Keras 2 or 3, or a ``.keras`` archive.

    Raises:
      WeightsError: h5py is not installed, or the file refers to another file or is compressed.
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
    if archive is not None:
        # Keras never compresses, and a compressed entry could expand to any size.
        if archive.getinfo("model.weights.h5").compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"{path} is compressed, which Keras never does: save it again")
        source, kind = io.BytesIO(archive.read("model.weights.h5")), "Keras archive"
    tensors: dict[str, Tensor] = {}
    file = h5py.File(source, "r")  # open as long as tensors may be read
    for place, node in _datasets(file, path):
        if node.external or node.is_virtual:
            raise WeightsError(f"{path}: {place} refers to another file: refused")
        if node.id.get_create_plist().get_nfilters() or _chunk_bytes(node) > _MAX_CHUNK:
            # A chunk may expand to any size, even if its dataset is small.
            raise WeightsError(
                f"{path}: {place} is compressed or has huge chunks, which Keras never does: save"
                " it again"
            )
        name = _name(place, node)
        if name is not None:
            read = functools.partial(_read, file, place)
            tensors[name] = Tensor(tuple(node.shape or ()), _dtype(node), read)
    return WeightFile(kind, tensors)


def _datasets(file: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the paths and datasets outside the optimizer, each object once, by name.

    h5py's visititems recurses in C, which nested groups could overflow, and makes a list of all
    names first.
    """
    import h5py

    size, seen = path.stat().st_size, set()

    def links(group: Any) -> list[str]:
        names: list[str] = []
        problems: list[str] = []

        def add(name: bytes, info: Any) -> bool:
            if len(names) + len(pending) + len(seen) == max_entries(size):
                problems.append("it has too many groups and datasets")
            if len(name) > _MAX_LINK:
                problems.append(f"a group has a name of {len(name):,} bytes")
            if info.type == h5py.h5l.TYPE_HARD:  # others could lead to other files
                names.append(name.decode("utf-8", "surrogateescape"))
            return bool(problems)  # True ends the iteration

        group.id.links.iterate(add, info=True)
        if problems:
            raise ValueError(problems[0])
        return sorted(names, reverse=True)

    pending: list[tuple[Any, str]] = []
    pending += [(file, f"/{name}") for name in links(file) if not name.startswith("optimizer")]
    while pending:
        parent, place = pending.pop()
        node = parent[place.rpartition("/")[2]]
        address = h5py.h5o.get_info(node.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(node, h5py.Dataset):
            yield place, node
        elif isinstance(node, h5py.Group):
            if place.count("/") > _MAX_DEPTH:
                raise ValueError(f"groups nested more than {_MAX_DEPTH} deep")
            pending += [(node, f"{place}/{name}") for name in links(node)]


def _read(file: Any, place: str) -> np.ndarray:
    return file[place][()]


def _chunk_bytes(dataset: Any) -> int:
    return math.prod(dataset.chunks or ()) * dataset.id.get_type().get_size()


def _dtype(dataset: Any) -> np.dtype:
    """Return the type of numbers, or of Python objects for texts and others without parts."""
    from h5py import h5t

    kind = dataset.id.get_type().get_class()
    if kind not in (h5t.FLOAT, h5t.INTEGER, h5t.STRING, h5t.ENUM, h5t.OPAQUE):
        raise ValueError(f"{truncate(dataset.name)} has values made of others")
    return dataset.dtype if kind in (h5t.FLOAT, h5t.INTEGER) else np.dtype(object)


def _name(place: str, dataset: Any) -> str | None:
    """Return ``LAYER/VARIABLE``, or None if the dataset is not a variable of a layer in use."""
    parent, _, variable = place.rpartition("/")
    if not parent.endswith("/vars"):  # Keras 2: …/LAYER/kernel:0
        layer = parent.rpartition("/")[2]
        return f"{_OLD_NAMES.get(layer, layer)}/{variable.partition(':')[0]}"
    group = dataset.parent
    variables = _NUMBERED.get(len(group))
    if variables is None or not re.fullmatch("[0-3]", variable) or int(variable) >= len(variables):
        return None
    layer = _attribute(group, "name") or parent.split("/")[-2]
    return f"{layer}/{variables[int(variable)]}"


def _attribute(group: Any, name: str) -> str:
    """Return a text of moderate length, or "" if the group has none."""
    if name not in group.attrs:
        return ""
    attribute = group.attrs.get_id(name)
    value = np.empty((), attribute.dtype)
    if attribute.shape != () or value.nbytes > _MAX_LINK:
        raise ValueError(f"an attribute {name} that is not a text")
    attribute.read(value)
    text = value[()]
    if not isinstance(text, bytes | str) or len(text) > _MAX_LINK:
        raise ValueError(f"an attribute {name} that is not a text of up to {_MAX_LINK} characters")
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


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


def stem_version(tensors: Mapping[str, Tensor]) -> int | None:
    """Return 1 or 2 for the tensors of a ResNet for color images of that version, else None."""
    stem = tensors.get(_STEM)
    if stem is None or len(stem.shape) != 4 or stem.shape[2] != 3:
        return None
    is_preactivated = any(name.startswith("post_bn/") or "_preact_bn/" in name for name in tensors)
    return 2 if is_preactivated else 1


def fold_image_format(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the stem of a ResNet v1 take RGB, normalized with ``RGB_MEAN_V1`` and ``RGB_STD``.

    Only the order and the scale of the channels are folded into the kernel. Subtracting the mean
    stays with the images: the stem pads with zeros, which stand for the mean in Keras too. The
    tensors of other networks are returned as they are.
    """
    if stem_version(tensors) != 1:
        return tensors
    scale = 255 * np.array(RGB_STD)[:, None]
    return tensors | {_STEM: _changed(tensors[_STEM], lambda kernel: kernel[:, :, ::-1] * scale)}


def _changed(tensor: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    return Tensor(tensor.shape, tensor.dtype, lambda: change(tensor.read()))


def strides_match(model: ResNet) -> bool:
    """Return whether the network downsamples where Keras's do, which names do not show."""
    if model.preactivation:
        return model.stride_block == "last"
    return model.stride_block == "first" and (
        model.stride_conv == "1x1" or model.block != "bottleneck" or len(model.stage_sizes) < 2
    )
