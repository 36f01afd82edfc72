"""Foreign tensors to our variables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from flax_resnet.init import init_variables
from flax_resnet.resnet import ResNet
from flax_resnet.variants import VARIANTS, create_model
from flax_resnet.weights import keras_files
from flax_resnet.weights.files import read_file
from flax_resnet.weights.leaves import Path, flat, leaf_shapes, title
from flax_resnet.weights.names import (
    HUGGINGFACE,
    KERAS,
    TIMM,
    DetectedLayout,
    Layout,
    recognise,
    unnamed_fields,
)
from flax_resnet.weights.report import Report, some
from flax_resnet.weights.tensors import (
    Tensor,
    WeightFile,
    WeightsError,
    is_float,
    shortened,
    wrap_read_errors,
)

_HEAD = "head"
_MOST_CLASSES = 1_000_000
_MOST_CHANNELS = 10_000


def read_weights(
    model: str | ResNet,
    path: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    strict: bool = True,
    seed: int = 0,
) -> tuple[dict[str, Any], Report]:
    """Reads ``path`` as :func:`flax_resnet.load_weights` does; gives the report too."""
    file = read_file(path)
    found = recognise(file.tensors)
    if found is None:
        raise WeightsError(
            f"{path} has no layer names of torchvision, timm, Hugging Face, Keras or flax-resnet:"
            f" its {len(file.tensors)} tensors are {some(file.tensors)}"
        )
    network = _network(model, num_classes, file, found)
    tensors = _plain_tensors(file, found, network)
    channels = _channels(network, found.layout, tensors)
    expected = leaf_shapes(network, channels)
    fitting, report = _match(network, file, found, tensors, expected, str(path))
    if strict and (problems := _problems(network, report, found)):
        raise _wrong_network(str(path), model, file, found, problems)
    variables = {
        leaf: _values(tensors[name], leaf, expected[leaf], found.layout, f"{path}: {name}")
        for leaf, name in fitting.items()
    }
    fresh = (*report.missing, *(name for name, *_ in report.mismatched))
    if fresh:
        drawn = flat(init_variables(network, seed, (64, 64, channels)))
        variables |= {path: drawn[path] for path in expected if "/".join(path) in fresh}
    return unflatten_dict({path: variables[path] for path in expected}), report


def guess_models(file: WeightFile, found: DetectedLayout) -> list[str]:
    """The named networks that the file's tensors fit exactly, but for the head's classes.

    Of several, those that the file hardly means are left out.
    """
    fitting = []
    for name, row in VARIANTS.items():
        if tuple(row["stage_sizes"]) != found.stage_sizes:
            continue
        network = _network(name, None, file, found)
        tensors = _plain_tensors(file, found, network)
        expected = leaf_shapes(network, _channels(network, found.layout, tensors))
        _, report = _match(network, file, found, tensors, expected, "")
        if not _problems(network, report, found):
            fitting.append((name, report.doubts))
    return [name for name, doubts in fitting if not doubts] or [name for name, _ in fitting]


def count_classes(model: ResNet, file: WeightFile, found: DetectedLayout) -> int | None:
    """The classes of the file's head, where the network has it; None where it has none."""
    name = found.layout.tensor(model, ("params", _HEAD, "bias"))
    shape = next((t.shape for n, t in file.tensors.items() if found.plain(n) == name), ())
    if len(shape) != 1 or not shape[0]:
        return None
    return _sane(shape[0], _MOST_CLASSES, "classes")


def _sane(number: int, most: int, what: str) -> int:
    """Refuses what a damaged file claims before memory is given to it."""
    if number > most:
        raise WeightsError(f"the file claims {number:,} {what}, more than {most:,}: it is damaged")
    return number


def _plain_tensors(file: WeightFile, found: DetectedLayout, model: ResNet) -> dict[str, Tensor]:
    tensors = {found.plain(name): tensor for name, tensor in file.tensors.items()}
    return keras_files.fold(tensors, model) if found.layout is KERAS else tensors


def _network(
    model: str | ResNet, num_classes: int | None, file: WeightFile, found: DetectedLayout
) -> ResNet:
    """The network to fill: of a name, with the file's number of classes unless told."""
    network = create_model(model) if isinstance(model, str) else model
    if isinstance(model, str) and num_classes is None:
        num_classes = count_classes(network, file, found)
    return network if num_classes is None else network.clone(num_classes=num_classes)


def _channels(model: ResNet, layout: Layout, tensors: Mapping[str, Tensor]) -> int:
    """The image channels that the file's stem takes; 3 where it cannot be told."""
    for stem in ("stem_conv", "stem_conv1"):
        tensor = tensors.get(layout.tensor(model, ("params", stem, "kernel")) or "")
        if tensor is not None and len(tensor.shape) == 4:
            channels = tensor.shape[1 if layout.torch else 2]
            return _sane(channels, _MOST_CHANNELS, "image channels")
    return 3


def _match(
    model: ResNet,
    file: WeightFile,
    found: DetectedLayout,
    tensors: Mapping[str, Tensor],
    expected: Mapping[Path, tuple[int, ...]],
    path: str,
) -> tuple[dict[Path, str], Report]:
    """Which tensor fills which leaf, by name and shape; no values are read."""
    fitting: dict[Path, str] = {}
    missing, mismatched, used = [], [], set()
    for leaf, shape in expected.items():
        name = found.layout.tensor(model, leaf)
        used.add(name)
        if name is None or name not in tensors:
            missing.append("/".join(leaf))
            continue
        theirs = tensors[name].shape
        if _is_torch_kernel(found.layout, leaf):
            theirs = _shape_from_torch(theirs, shape)
        if theirs == shape:
            fitting[leaf] = name
        else:
            mismatched.append(("/".join(leaf), theirs, shape))
    # How often PyTorch's norms were updated; nothing here has a use for it.
    counter = "num_batches_tracked"
    report = Report(
        path=path,
        format=file.format,
        layout=found.name,
        loaded=tuple("/".join(leaf) for leaf in fitting),
        skipped=tuple(n for n in tensors if n not in used and not n.endswith(counter)),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        notes=file.notes,
        doubts=_doubts(model, file, found),
    )
    return fitting, report


def _doubts(model: ResNet, file: WeightFile, found: DetectedLayout) -> tuple[str, ...]:
    """What the names cannot tell, but a file of this layout hardly means."""
    if "layout" in file.metadata:  # saved here
        ours, theirs = unnamed_fields(model), _saved_fields(file)
        return tuple(
            f"the file is of a network with {field}={shortened(repr(theirs[field]))}, this one has"
            f" {ours[field]!r}: its logits will differ"
            for field in ours
            if field in theirs and theirs[field] != ours[field]
        )
    in_1x1 = model.block == "bottleneck" and model.stride_conv == "1x1"
    if found.layout in (TIMM, HUGGINGFACE) and in_1x1 and not model.preactivation:
        return (
            "torchvision, timm and Hugging Face have a bottleneck's stride in the 3×3, this network"
            " in the first 1×1: for their weights take one with stride_conv='3x3'",
        )
    return ()


def _saved_fields(file: WeightFile) -> dict[str, Any]:
    """What save_weights wrote of the network; empty where it did not, or wrote no such thing."""
    try:
        fields = json.loads(file.metadata.get("fields", "{}"))
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _problems(model: ResNet, report: Report, found: DetectedLayout) -> list[str]:
    """Why the file is another network's; empty where all but the head fits, and all is used."""
    if found.layout is KERAS and not keras_files.strides_fit(model):
        return ["Keras halves the maps elsewhere, so that its weights would give other logits"]
    missing = [name for name in report.missing if name.split("/")[1] != _HEAD]
    shapes = [
        f"{name} is {theirs}, not {ours}"
        for name, theirs, ours in report.mismatched
        if name.split("/")[1] != _HEAD or theirs[:-1] != ours[:-1]
    ]
    left = [name for name in report.skipped if found.in_network(name)]
    return [
        f"{len(names)} {what} ({some(names)})"
        for what, names in (
            ("leaves are missing", missing),
            ("shapes differ", shapes),
            ("tensors have no place", left),
        )
        if names
    ]


def _wrong_network(
    path: str, model: str | ResNet, file: WeightFile, found: DetectedLayout, problems: list[str]
) -> WeightsError:
    fitting = " or ".join(guess_models(file, found))
    fits = f"{fitting} fits: name that one" if fitting else "no network that has a name here fits"
    return WeightsError(
        f"{path} is not of {title(model)}: {'; '.join(problems)}. Its stages have"
        f" {'-'.join(map(str, found.stage_sizes))} blocks; {fits}. In Python, strict=False takes"
        " what can be taken"
    )


def _shape_from_torch(theirs: tuple[int, ...], ours: tuple[int, ...]) -> tuple[int, ...]:
    if len(theirs) == 4 and len(ours) == 2 and theirs[2:] == (1, 1):
        theirs = theirs[:2]  # a 1×1 convolution over one pixel is a linear layer
    if len(theirs) == 4:
        return (*theirs[2:], theirs[1], theirs[0])
    return theirs[::-1]


def _is_torch_kernel(layout: Layout, leaf: Path) -> bool:
    return layout.torch and leaf[-1] == "kernel"


def _values(
    tensor: Tensor, leaf: Path, shape: tuple[int, ...], layout: Layout, where: str
) -> np.ndarray:
    """Copies a tensor whose shape is known to fit into a float32 array of our order."""
    if not is_float(tensor.dtype):
        raise WeightsError(
            f"{where} is {tensor.dtype}, not floating point; quantised weights must be"
            " turned back to float32 first"
        )
    with wrap_read_errors(where):
        array = tensor.read()
    if _is_torch_kernel(layout, leaf):
        linear = len(shape) == 2
        array = array.reshape(shape[::-1]).T if linear else array.transpose(2, 3, 1, 0)
    with np.errstate(over="ignore"):
        values = np.array(array, np.float32, order="C")
    finite = np.isfinite(values)
    if not finite.all():
        first = np.unravel_index(np.argmin(finite), shape)
        raise WeightsError(
            f"{where} has {int((~finite).sum())} of {values.size} values that are not finite,"
            f" the first {values[first]} at {tuple(map(int, first))} in our order of axes;"
            " the run that wrote it diverged, or the file is damaged: take an earlier checkpoint"
        )
    if leaf[-1] == "var" and values.size and values.min() < 0:
        raise WeightsError(f"{where} is a variance, but holds {values.min()}; the file is damaged")
    return values
