"""Load the tensors of a weight file into a network's variables."""

import dataclasses
import logging
import os
from typing import Any

import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from flax_resnet.images.pixels import MAX_CHANNELS
from flax_resnet.init import init_variables
from flax_resnet.text import truncate
from flax_resnet.weights.formats import keras_files
from flax_resnet.weights.formats.files import read_file
from flax_resnet.weights.leaves import (
    Path,
    describe_model,
    flatten,
    stem_kernel,
)
from flax_resnet.weights.matching import (
    Match,
    count_classes,
    find_problems,
    is_torch_kernel,
    match_file,
)
from flax_resnet.weights.naming.candidates import (
    candidates,
    dense_candidates,
    hidden_twins,
    without_hidden_fields,
)
from flax_resnet.weights.naming.layouts import (
    DetectedLayout,
    Layout,
    detect_layout,
)
from flax_resnet.weights.naming.names import find_network
from flax_resnet.weights.naming.parts import split_part
from flax_resnet.weights.network_config import fields_beside
from flax_resnet.weights.published import torchvision_files
from flax_resnet.weights.report import Report, first_names
from flax_resnet.weights.stems import adapt_stem
from flax_resnet.weights.tensors import (
    Tensor,
    WeightFile,
    WeightsError,
    is_float,
    wrap_read_errors,
)

_log = logging.getLogger(__name__)


def load_weights(
    model: str | nn.Module,
    path: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    strict: bool = True,
    seed: int = 0,
    channels: int | None = None,
) -> dict[str, Any]:
    """Load a weight file or checkpoint into the variables of a network.

    The format is recognized by the file's content and the layout by its tensor names:
    torchvision, timm or Hugging Face Transformers in ``.safetensors`` or ``.pth``/``.pt``/
    ``.bin``, Keras Applications in ``.h5``/``.weights.h5``/``.keras``, transformers' former
    FlaxResNet and the names of this library in ``.msgpack``, the latter also in ``.npz``. Names
    of wrappers and of replaced heads are understood. A directory may be an Orbax checkpoint or a
    workdir, whose last step is read.

    The report on loaded, skipped, missing and mismatched tensors is logged, as a warning unless
    it is complete; :func:`read_weights` returns it.

    Args:
      model: a name in :func:`flax_resnet.list_models`, or a network.
      path: the file or directory. ``FILE#PART`` names one of several networks in a file, such as
        ``checkpoint.pth.tar#ema``.
      num_classes: number of classes of the head, by default that of the network, or of the file
        if ``model`` is a name. If the file has another number or no head, the head is newly
        initialized. 0 omits it.
      strict: reject a file that lacks any tensor of the stem and blocks or has additional ones.
        Otherwise, whatever fits is loaded and the rest is newly initialized.
      seed: seed of newly initialized leaves, as in :func:`flax_resnet.init_variables`.
      channels: image channels of the stem; default: as many as in the file. A stem for RGB is
        adapted to other numbers, see :func:`adapt_stem`.

    Returns:
      ``{"params", "batch_stats"}`` as float32 NumPy arrays.

    Raises:
      WeightsError: the file is missing, empty, truncated, corrupt, of an unknown format or
        another network, would run code, or has values that are not finite or not floating
        point. The message has one line that says what to do.
    """
    variables, report = read_weights(
        model, path, num_classes=num_classes, strict=strict, seed=seed, channels=channels
    )
    _log.log(logging.INFO if report.complete else logging.WARNING, "%s", report)
    return variables


def read_weights(
    model: str | nn.Module,
    path: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    strict: bool = True,
    seed: int = 0,
    channels: int | None = None,
    fold_image_format: bool = False,
) -> tuple[dict[str, Any], Report]:
    """Load a file like :func:`load_weights`, and return the variables and the report.

    With ``fold_image_format``, see :func:`keras_files.fold_image_format`, it takes RGB.
    """
    if channels is not None and channels not in range(1, MAX_CHANNELS + 1):
        raise WeightsError(f"channels must be 1 to {MAX_CHANNELS}, not {channels!r}")
    file, detected = read_network(path)
    if fold_image_format:
        file = dataclasses.replace(file, tensors=keras_files.fold_image_format(file.tensors))
    if detected is None:
        raise WeightsError(
            f"{path} has no layer names of torchvision, timm, Hugging Face, Keras or flax-resnet:"
            f" its {len(file.tensors)} tensors are {first_names(file.tensors)}"
        )
    match = match_file(model, num_classes, file, detected, str(path))
    if strict and (problems := find_problems(match, detected)):
        fitting = " or ".join(guess_models(file, detected))
        fits = f"it fits {fitting}: use that model" if fitting else "no named model fits"
        raise WeightsError(
            f"{path} does not match {describe_model(model)}: {'; '.join(problems)}. Its stages have"
            f" {truncate('-'.join(map(str, detected.stage_sizes)))} blocks; {fits}. In Python,"
            " strict=False loads whatever fits"
        )
    variables = {
        leaf: _values(tensor, leaf, match.shapes[leaf], detected.layout, f"{path}: {name}")
        for leaf, (name, tensor) in match.sources.items()
    }
    if len(variables) < len(match.shapes):
        initial = flatten(init_variables(match.network, seed, (64, 64, channels or match.channels)))
        variables = {leaf: variables.get(leaf, initial[leaf]) for leaf in match.shapes}
    report, stem = match.report, stem_kernel(match.sources)
    if stem is not None and channels not in (None, match.channels):
        variables[stem] = adapt_stem(variables[stem], channels)
        how = "summed" if channels == 1 else f"repeated and scaled by {match.channels}/{channels}"
        note = f"the stem's weights of {match.channels} image channels are {how} for {channels}"
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return unflatten_dict(variables), report


def read_network(
    path: str | os.PathLike[str],
) -> tuple[WeightFile, DetectedLayout | None]:
    """Return one network of the file, and the layout of its names."""
    file = find_network(read_file(path), str(path))
    file = dataclasses.replace(file, fields=fields_beside(path))
    return file, detect_layout(file.tensors)


def guess_models(file: WeightFile, detected: DetectedLayout) -> list[str]:
    """Return the named models that fit the file's tensors except for the number of classes.

    Models with doubts in the report are included only if all have some, and anti-aliased ones
    only if the file's metadata show them: their tensors are those of the networks without.
    """
    everything = {**file.tensors, **file.beside}
    dense = [
        name
        for name in dense_candidates(detected, everything)
        if _is_complete(match_file(name, None, file, detected), detected)
    ]
    if dense:
        return dense
    fitting = []
    for name in candidates(detected, file.tensors):
        match = match_file(name, None, file, detected)
        if not find_problems(match, detected):
            fitting.append((name, match.report.doubts))
    sure = [name for name, doubts in fitting if not doubts]
    return without_hidden_fields(sure or [name for name, _ in fitting])


def twins_note(file: WeightFile, name: str) -> str:
    """Return a note on the named models that fit the file as well as ``name``, or ""."""
    known = "layout" in file.metadata or "antialias" in file.fields
    twins = [] if known else hidden_twins(name)
    if not twins:
        return ""
    return (
        f"{name} is assumed: {' and '.join(twins)} {'have' if len(twins) > 1 else 'has'} the same"
        " tensors, but other logits"
    )


def only_model(source: str | os.PathLike[str]) -> str:
    """Return the only named model that fits the file, or the one in the file's metadata.

    If anti-aliased models have the same tensors, the one without is assumed, and a warning logged.

    Raises:
      WeightsError: several fit, or none.
    """
    file, detected = read_network(source)
    fitting = guess_models(file, detected) if detected else []
    if file.metadata.get("model") in fitting:
        return file.metadata["model"]
    if len(fitting) != 1:
        names = " or ".join(fitting) or "no named model"
        raise WeightsError(
            f"{source} fits {names}; choose the network with --model NAME (in Python: model=…)"
        )
    path, _ = split_part(source)
    published = torchvision_files.find_by_file(path)
    if published is None and (note := twins_note(file, fitting[0])):
        _log.warning(
            "%s: %s; choose the network with --model NAME (in Python: model=…)", source, note
        )
    return fitting[0]


def _is_complete(match: Match, detected: DetectedLayout) -> bool:
    return not (match.report.missing or match.report.mismatched or find_problems(match, detected))


def classes_in(source: str | os.PathLike[str], model: nn.Module) -> int | None:
    """Return the number of classes of a file's head, or None if it has no head."""
    file, detected = read_network(source)
    return count_classes(model, file, detected) if detected else None


def _values(
    tensor: Tensor, leaf: Path, shape: tuple[int, ...], layout: Layout, source: str
) -> np.ndarray:
    """Return a matching tensor's values as a new float32 array with our axis order."""
    if not is_float(tensor.dtype):
        raise WeightsError(
            f"{source} is {tensor.dtype}, not floating point; convert quantized weights to float32"
            " first"
        )
    with wrap_read_errors(source):
        array = tensor.read()
    if is_torch_kernel(layout, leaf):
        image_conv = len(shape) == 4  # the others are linear or over the channels
        array = array.transpose(2, 3, 1, 0) if image_conv else array.reshape(shape[::-1]).T
    with np.errstate(over="ignore"):
        values = np.array(array, np.float32, order="C")
    finite = np.isfinite(values)
    if not finite.all():
        first = np.unravel_index(np.argmin(finite), shape)
        raise WeightsError(
            f"{source}: {int((~finite).sum())} of {values.size} values are not finite, the first"
            f" {values[first]} at {tuple(map(int, first))} in our axis order; training diverged or"
            " the file is corrupt: use an earlier checkpoint"
        )
    if leaf[-1] == "var" and values.size and values.min() < 0:
        raise WeightsError(f"{source} is a variance but has {values.min()}; the file is corrupt")
    return values
