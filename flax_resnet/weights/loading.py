"""Foreign tensors to our variables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flax_resnet.init import init_variables
from flax_resnet.resnet import ResNet
from flax_resnet.variants import VARIANTS, create_model
from flax_resnet.weights import keras_files
from flax_resnet.weights.files import read_file
from flax_resnet.weights.leaves import Path, expected_leaves, flat, nested, title
from flax_resnet.weights.names import Layout, Recognised, recognise
from flax_resnet.weights.report import Report, some
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError, is_float

_HEAD = "head"
_EPSILON = 1e-5


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
    tensors = _plain_tensors(file, found)
    network = _network(model, num_classes, found.layout, tensors)
    if found.layout.name == "keras":
        tensors = keras_files.fold(tensors, _EPSILON)
    expected = expected_leaves(network, _channels(network, found.layout, tensors))
    fitting, report = _match(network, file, found.layout, tensors, expected, str(path))
    if strict and (problems := _problems(report, found)):
        raise _wrong_network(str(path), model, file, found, problems)
    variables = {
        leaf: _values(tensors[name], leaf, expected[leaf], found.layout, f"{path}: {name}")
        for leaf, name in fitting.items()
    }
    fresh = (*report.missing, *(name for name, *_ in report.mismatched))
    if fresh:
        channels = expected[_stem(expected)][2]
        drawn = flat(init_variables(network, seed, (64, 64, channels)))
        variables |= {path: drawn[path] for path in expected if "/".join(path) in fresh}
    return nested({path: variables[path] for path in expected}), report


def guess_models(file: WeightFile, found: Recognised) -> list[str]:
    """The named networks that the file's tensors fit exactly, but for the head's classes."""
    tensors = _plain_tensors(file, found)
    if found.layout.name == "keras":
        tensors = keras_files.fold(tensors, _EPSILON)
    fitting = []
    for name, row in VARIANTS.items():
        if tuple(row["stage_sizes"]) != found.stage_sizes:
            continue
        network = _network(name, None, found.layout, tensors)
        expected = expected_leaves(network, _channels(network, found.layout, tensors))
        try:
            _, report = _match(network, file, found.layout, tensors, expected, "")
        except WeightsError:  # the layout has no name for one of its layers
            continue
        if not _problems(report, found):
            fitting.append(name)
    return fitting


def count_classes(file: WeightFile, found: Recognised) -> int | None:
    """The classes of the file's head; None where it has no head."""
    return _classes(create_model("resnet50"), found.layout, _plain_tensors(file, found))


def _plain_tensors(file: WeightFile, found: Recognised) -> dict[str, Tensor]:
    return {found.plain(name): tensor for name, tensor in file.tensors.items()}


def _network(
    model: str | ResNet, num_classes: int | None, layout: Layout, tensors: Mapping[str, Tensor]
) -> ResNet:
    """The network to fill: of a name, with the file's number of classes unless told."""
    if isinstance(model, str):
        network = create_model(model)
        if num_classes is None:
            num_classes = _classes(network, layout, tensors)
    else:
        network = model
    return network if num_classes is None else network.clone(num_classes=num_classes)


def _classes(model: ResNet, layout: Layout, tensors: Mapping[str, Tensor]) -> int | None:
    bias = tensors.get(layout.tensor(model, ("params", _HEAD, "bias")))
    return bias.shape[0] if bias is not None and len(bias.shape) == 1 and bias.shape[0] else None


def _stem(leaves: Iterable[Path]) -> Path:
    return next(p for p in leaves if p[1].startswith("stem_conv") and p[-1] == "kernel")


def _channels(model: ResNet, layout: Layout, tensors: Mapping[str, Tensor]) -> int:
    """The image channels that the file's stem takes; 3 where it cannot be told."""
    stem = tensors.get(layout.tensor(model, ("params", "stem_conv", "kernel")))
    if stem is None or len(stem.shape) != 4:
        return 3
    return stem.shape[1 if layout.torch else 2]


def _match(
    model: ResNet,
    file: WeightFile,
    layout: Layout,
    tensors: Mapping[str, Tensor],
    expected: Mapping[Path, tuple[int, ...]],
    path: str,
) -> tuple[dict[Path, str], Report]:
    """Which tensor fills which leaf, by name and shape; no values are read."""
    fitting: dict[Path, str] = {}
    missing, mismatched, used = [], [], set()
    for leaf, shape in expected.items():
        name = layout.tensor(model, leaf)
        used.add(name)
        if name not in tensors:
            missing.append("/".join(leaf))
            continue
        theirs = tensors[name].shape
        if _is_torch_kernel(layout, leaf):
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
        layout=layout.name,
        loaded=tuple("/".join(leaf) for leaf in fitting),
        skipped=tuple(n for n in tensors if n not in used and not n.endswith(counter)),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        notes=file.notes,
    )
    return fitting, report


def _problems(report: Report, found: Recognised) -> list[str]:
    """Why the file is another network's; empty where all but the head fits, and all is used."""
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
    path: str, model: str | ResNet, file: WeightFile, found: Recognised, problems: list[str]
) -> WeightsError:
    fitting = " or ".join(guess_models(file, found)) or "none that has a name here"
    return WeightsError(
        f"{path} is not of {title(model)}: {'; '.join(problems)}. Its stages have"
        f" {'-'.join(map(str, found.stage_sizes))} blocks, and the network that fits is"
        f" {fitting}. Name that one, or pass strict=False to take what fits"
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
