"""Which library has the network and the preprocessing of a run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from flax_resnet import create_model
from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.own_layers import label
from flax_resnet.resnet import ResNet
from flax_resnet.runs import Run
from flax_resnet.variants import TIMM_NAMES
from flax_resnet.weights.published import torchvision_files
from train.export.timm_files import crop_fraction
from train.runtime.errors import UsageError

_TORCHVISION = {weights.model for weights in torchvision_files.PUBLISHED}
_TORCHVISION_PIXELS = {weights.model for weights in torchvision_files.SEGMENTATION}
# Fields that do not affect evaluation in float32.
_TRAINING_FIELDS = ("num_classes", "dtype", "axis_name", "frozen", "zero_init_last", "drop_path")
_TRAINING_FIELDS += ("dropout", "block_dropout", "norm_momentum", "parent", "name")
# The same of networks with a head on a backbone; torchvision has auxiliary heads.
_TRAINING_FIELDS += ("backbone", "aux_head", "freeze_batch_norm")
# Fields that may be unset, and the properties with their values.
_EFFECTIVE = {"head_norm": "norm", "atrous_rates": "dilations"}
# Of transformers: fields that its configurations set; the others must be ResNet's defaults, or
# those of Big Transfer (BiT) in a pre-activation network.
_TRANSFORMERS_FIELDS = ("stage_sizes", "width", "stem_width", "block", "stride_conv")
_BIT: dict[str, Any] = dict(preactivation=True, norm="group", weight_standardization=True)


def check_network(run: Run, format: str, formats: Sequence[str]) -> None:
    """Check that the library of a format has the network.

    Args:
      run: the run to export.
      format: the requested one of ``formats``.
      formats: all export formats.

    Raises:
      UsageError: it does not; the message has the formats that have it.
    """
    if reason := missing_in(run, format):
        others = ", ".join(other for other in formats if not missing_in(run, other))
        raise UsageError(f"{reason}; formats for this run: {others}")


def missing_in(run: Run, format: str) -> str:
    """Return why a format's library does not have the network or its preprocessing, or ""."""
    name, model = run.config["model.name"], run.model
    if format not in ("torchvision", "timm", "huggingface"):
        return ""
    if run.kind == "segmentation":
        return _missing_segmentation(run, format)
    if not isinstance(model, ResNet):
        return f"{format} has no network {name!r}"
    if format == "huggingface":
        fields = _missing_in_transformers(model)
        if fields:
            return f"transformers has no ResNet with {_describe(fields)}"
        if not isinstance(run.preprocessing.resize, int):
            return "transformers resizes to a shorter side, and has no crops that are not square"
        return ""
    if name not in (_TORCHVISION if format == "torchvision" else TIMM_NAMES):
        return f"{format} has no network {name!r}"
    if changed := changed_fields(model, name):
        return f"{format}'s {name} cannot have {_describe(changed)}"
    if format == "torchvision":
        return _missing_channels(run)
    if crop_fraction(run.preprocessing) is None:
        sizes = f"{run.preprocessing.image_size} of {run.preprocessing.resize}"
        return f"timm has no crop fraction for crops of {sizes} pixels"
    return ""


def _missing_segmentation(run: Run, format: str) -> str:
    name = run.config["model.name"]
    if format != "torchvision" or name not in _TORCHVISION_PIXELS:
        library = "transformers" if format == "huggingface" else format
        return f"{library} has no network for segmentation {name!r}"
    if changed := changed_fields(run.model, name):
        return f"torchvision's {name} cannot have {_describe(changed)}"
    return _missing_channels(run)


def _missing_channels(run: Run) -> str:
    channels = run.preprocessing.pixels.channels
    return "" if channels == 3 else f"torchvision's networks are for 3 channels, not {channels}"


def _missing_in_transformers(model: ResNet) -> dict[str, Any]:
    """Return the fields that no network of transformers has."""
    required = {field.name: field.default for field in dataclasses.fields(ResNet)}
    blocks: tuple[Any, ...] = ("residual", "bottleneck")
    if model.preactivation:
        required |= _BIT
        blocks = ("bottleneck",)
    free = _TRAINING_FIELDS + _TRANSFORMERS_FIELDS
    missing = {
        name: getattr(model, name)
        for name, value in required.items()
        if name not in free and getattr(model, name) != value
    }
    if model.block not in blocks:
        missing["block"] = model.block
    if model.stem_width not in (None, model.width):
        missing["stem_width"] = model.stem_width
    if model.preactivation and model.stride_conv != required["stride_conv"]:
        missing["stride_conv"] = model.stride_conv
    return missing


def _describe(fields: dict[str, Any]) -> str:
    texts = (label(value) if callable(value) else repr(value) for value in fields.values())
    return ", ".join(f"{field}={text}" for field, text in zip(fields, texts, strict=True))


def changed_fields(model: Any, name: str) -> dict[str, Any]:
    """Return the fields that differ from the named network and affect its outputs.

    Those of a network with a head on a backbone include the fields of the backbone.
    """
    named = create_model(name)
    changed = _differing_fields(model, named)
    backbone, path = find_backbone(model)
    return changed | (_differing_fields(backbone, find_backbone(named)[0]) if path else {})


def _differing_fields(model: Any, named: Any) -> dict[str, Any]:
    def value(network: Any, field: str) -> Any:
        return getattr(network, _EFFECTIVE.get(field, field))

    return {
        field.name: value(model, field.name)
        for field in dataclasses.fields(named)
        if field.name not in _TRAINING_FIELDS
        and value(model, field.name) != value(named, field.name)
    }
