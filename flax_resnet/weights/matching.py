"""Match the tensors of a weight file with a network's variables, by name and shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import linen as nn

from flax_resnet.dense.on_backbone import HEADS, find_backbone
from flax_resnet.resnet import ResNet
from flax_resnet.variants import create_model
from flax_resnet.weights.formats import keras_files
from flax_resnet.weights.leaves import FIRST_CONVS, Path, classifier_path, leaf_shapes
from flax_resnet.weights.naming.doubts import find_doubts
from flax_resnet.weights.naming.layouts import KERAS, DetectedLayout, Layout
from flax_resnet.weights.report import Report, first_names
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError

_COUNTER = "num_batches_tracked"  # PyTorch's count of norm updates, unused here
_MAX_CLASSES = 1_000_000
_MAX_CHANNELS = 10_000


def count_classes(model: nn.Module, file: WeightFile, detected: DetectedLayout) -> int | None:
    """Return the number of classes of the file's head, or None if it has no such head."""
    path, available = classifier_path(model), _available(model, file)
    leaves = (("params", *path, name) for name in ("bias", "kernel"))
    names = (detected.layout.tensor_name(model, leaf) for leaf in leaves)
    tensors = (available.get(name or "") for name in names)
    bias, kernel = (() if tensor is None else tensor.shape for tensor in tensors)
    if len(bias) != 1 or not bias[0]:
        return None
    classes = _limited(bias[0], _MAX_CLASSES, "classes")
    # A kernel of another size would be newly initialized, which could take any memory.
    return classes if classes in kernel else None


def _limited(number: int, maximum: int, unit: str) -> int:
    """Reject an excessive number in a corrupt file before memory is allocated for it."""
    if number > maximum:
        raise WeightsError(
            f"the file claims {number:,} {unit}, more than {maximum:,}: it is corrupt"
        )
    return number


def _image_channels(model: ResNet, layout: Layout, tensors: Mapping[str, Tensor]) -> int:
    """Return the image channels of the file's stem, or 3 if it has no stem."""
    for stem in FIRST_CONVS:
        tensor = tensors.get(layout.tensor_name(model, ("params", stem, "kernel")) or "")
        if tensor is not None and len(tensor.shape) == 4:
            channels = tensor.shape[1 if layout.torch else 2]
            return _limited(channels, _MAX_CHANNELS, "image channels")
    return 3


def _available(model: nn.Module, file: WeightFile) -> dict[str, Tensor]:
    """Return the tensors for a network: with a head on a backbone also those beside it."""
    if not find_backbone(model)[1]:
        return file.tensors
    return {name: tensor for name, (_, tensor) in file.beside.items()} | file.tensors


class Match(NamedTuple):
    """The network to load into, its leaves' shapes, and the named tensors of those that fit.

    ``unused`` are the names of tensors of the file's network that this one has no place for.
    """

    network: nn.Module
    channels: int
    shapes: dict[Path, tuple[int, ...]]
    sources: dict[Path, tuple[str, Tensor]]
    unused: tuple[str, ...]
    report: Report


def match_file(
    model: str | nn.Module,
    num_classes: int | None,
    file: WeightFile,
    detected: DetectedLayout,
    path: str = "",
) -> Match:
    """Match the tensors and the network's leaves by name and shape; no values are read.

    A named model gets the file's number of classes by default.
    """
    network = create_model(model) if isinstance(model, str) else model
    if isinstance(model, str) and num_classes is None:
        num_classes = count_classes(network, file, detected)
    if num_classes is not None:
        network = network.clone(num_classes=num_classes)
    backbone, has_dense_head = find_backbone(network)
    tensors = _available(network, file)
    if detected.layout is KERAS:
        tensors = keras_files.fold(tensors, backbone)
    channels = _image_channels(backbone, detected.layout, tensors)
    shapes = leaf_shapes(network, channels)
    sources, missing, mismatched = _pair(network, shapes, tensors, detected.layout)
    notes = file.notes
    if has_dense_head:
        others = _other_heads(missing, mismatched)
        inside = {name for name in map("/".join, shapes) if name.split("/")[1] in others}
        missing = [*(name for name in missing if name not in inside), *sorted(inside)]
        mismatched = [row for row in mismatched if row[0] not in inside]
        sources = {leaf: source for leaf, source in sources.items() if leaf[1] not in others}
        notes = (*notes, *(f"{head} is new: the file has no such head" for head in sorted(others)))
    used = {name for name, _ in sources.values()}
    used |= {detected.layout.tensor_name(network, tuple(row[0].split("/"))) for row in mismatched}
    own = [name for name in tensors if name in file.tensors]
    unused = tuple(n for n in own if n not in used and not n.endswith(_COUNTER))
    beside = used - file.tensors.keys()
    read = {original for name, (original, _) in file.beside.items() if name in beside}
    left = tuple(n for n in file.left if n not in read and not n.endswith(_COUNTER))
    report = Report(
        path=path,
        format=file.format,
        layout=detected.name,
        loaded=tuple("/".join(leaf) for leaf in sources),
        skipped=(*unused, *left),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        notes=notes,
        doubts=find_doubts(network, file, detected),
    )
    return Match(network, channels, shapes, sources, unused, report)


def _pair(
    network: nn.Module,
    shapes: Mapping[Path, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
    layout: Layout,
) -> tuple[dict[Path, tuple[str, Tensor]], list[str], list[tuple[str, Any, Any]]]:
    """Return the named tensors of the leaves that fit, and the missing and mismatched leaves."""
    sources, missing, mismatched = {}, [], []
    for leaf, shape in shapes.items():
        name = layout.tensor_name(network, leaf)
        if name is None or name not in tensors:
            missing.append("/".join(leaf))
            continue
        theirs = tensors[name].shape
        if is_torch_kernel(layout, leaf):
            theirs = _shape_from_torch(theirs, shape)
        if theirs == shape:
            sources[leaf] = name, tensors[name]
        else:
            mismatched.append(("/".join(leaf), theirs, shape))
    return sources, missing, mismatched


def find_problems(match: Match, detected: DetectedLayout) -> list[str]:
    """Return why the file belongs to another network; empty if all but the head matches."""
    report = match.report
    backbone, _ = find_backbone(match.network)
    if detected.layout is KERAS and not keras_files.strides_match(backbone):
        return ["Keras's network downsamples elsewhere, so its weights would give other logits"]
    missing = [name for name in report.missing if name.split("/")[1] not in HEADS]
    shapes = [
        f"{name} has {theirs}, not {ours}"
        for name, theirs, ours in report.mismatched
        if name.split("/")[1] not in HEADS or theirs[:-1] != ours[:-1]
    ]
    skipped = [name for name in match.unused if detected.in_network(name)]
    return [
        f"{len(names)} {problem} ({first_names(names)})"
        for problem, names in (
            ("leaves are missing", missing),
            ("shapes differ", shapes),
            ("tensors are not in the network", skipped),
        )
        if names
    ]


def _other_heads(missing: list[str], mismatched: list[tuple[str, Any, Any]]) -> set[str]:
    """Return the heads of which the file has no complete one, but for the number of classes.

    A head is loaded as a whole: single layers of another one would mean nothing in it.
    """
    others = {name.split("/")[1] for name in missing}
    others |= {name.split("/")[1] for name, theirs, ours in mismatched if theirs[:-1] != ours[:-1]}
    return others & set(HEADS)


def _shape_from_torch(theirs: tuple[int, ...], ours: tuple[int, ...]) -> tuple[int, ...]:
    if len(theirs) == 4 and len(ours) == 2 and theirs[2:] == (1, 1):
        theirs = theirs[:2]  # a 1×1 convolution of one pixel is a linear layer
    if len(theirs) == 4:
        return (*theirs[2:], theirs[1], theirs[0])
    return theirs[::-1]


def is_torch_kernel(layout: Layout, leaf: Path) -> bool:
    """Return whether a leaf is a kernel whose axes have PyTorch's order in the file."""
    return layout.torch and leaf[-1] == "kernel"
