"""Tensor names of each library: one table per layout maps our modules to its names.

A key is the path of our module, with ``block`` for ``stageS_blockB`` and ``#`` for a number;
an exact key takes precedence over one with ``#``. In a value, ``{s}`` and ``{b}`` are the
block's stage and index and ``{i}`` the module's own number, all counted from 1; ``{s0}``,
``{b0}`` and ``{i0}`` are counted from 0, ``{s1}`` from 2. The names are those in the published
checkpoints of each library.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from flax import linen as nn

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.own_layers import label
from flax_resnet.resnet import ResNet
from flax_resnet.weights.leaves import Path
from flax_resnet.weights.naming.dense import TORCHVISION_FIELDS, dense_fields, torchvision_module
from flax_resnet.weights.tensors import WeightsError

_TORCHVISION = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "block/conv#": "layer{s}.{b0}.conv{i}",
    "block/norm#": "layer{s}.{b0}.bn{i}",
    "block/shortcut/conv": "layer{s}.{b0}.downsample.0",
    "block/shortcut/norm": "layer{s}.{b0}.downsample.1",
    "head": "fc",
}

_TIMM = _TORCHVISION | {
    "stem_conv1": "conv1.0",
    "stem_norm1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_norm2": "conv1.4",
    "stem_conv3": "conv1.6",
    "stem_norm3": "bn1",
    "stem_conv4": "maxpool.0",
    "stem_norm4": "maxpool.1",
    "block/se/reduce": "layer{s}.{b0}.se.fc1",
    "block/se/expand": "layer{s}.{b0}.se.fc2",
    "block/eca/conv": "layer{s}.{b0}.se.conv",
}

# The pool precedes the convolution in the sequence.
_TIMM_AVERAGE_POOL = _TIMM | {
    "block/shortcut/conv": "layer{s}.{b0}.downsample.1",
    "block/shortcut/norm": "layer{s}.{b0}.downsample.2",
}

_TIMM_PREACTIVATION = {
    "stem_conv": "stem.conv",
    "stem_conv#": "stem.conv{i}",
    "stem_norm#": "stem.norm{i}",
    "block/conv#": "stages.{s0}.blocks.{b0}.conv{i}",
    "block/norm#": "stages.{s0}.blocks.{b0}.norm{i}",
    "block/shortcut/conv": "stages.{s0}.blocks.{b0}.downsample.conv",
    "final_norm": "norm",
    "head": "head.fc",
}

_HUGGINGFACE = {
    "stem_conv": "embedder.embedder.convolution",
    "stem_norm": "embedder.embedder.normalization",
    "block/conv#": "encoder.stages.{s0}.layers.{b0}.layer.{i0}.convolution",
    "block/norm#": "encoder.stages.{s0}.layers.{b0}.layer.{i0}.normalization",
    "block/shortcut/conv": "encoder.stages.{s0}.layers.{b0}.shortcut.convolution",
    "block/shortcut/norm": "encoder.stages.{s0}.layers.{b0}.shortcut.normalization",
    "head": "classifier.1",
}

# Hugging Face's pre-activation networks are those of Big Transfer (BiT).
_HUGGINGFACE_BIT = {
    "stem_conv": "embedder.convolution",
    "block/conv#": "encoder.stages.{s0}.layers.{b0}.conv{i}",
    "block/norm#": "encoder.stages.{s0}.layers.{b0}.norm{i}",
    "block/shortcut/conv": "encoder.stages.{s0}.layers.{b0}.downsample.conv",
    "final_norm": "norm",
    "head": "classifier.1",
}

_KERAS = {
    "stem_conv": "conv1_conv",
    "stem_norm": "conv1_bn",
    "block/conv#": "conv{s1}_block{b}_{i}_conv",
    "block/norm#": "conv{s1}_block{b}_{i}_bn",
    "block/shortcut/conv": "conv{s1}_block{b}_0_conv",
    "block/shortcut/norm": "conv{s1}_block{b}_0_bn",
    "head": "predictions",
}

# A norm has the number of the convolution before it.
_KERAS_PREACTIVATION = _KERAS | {
    "block/norm1": "conv{s1}_block{b}_preact_bn",
    "block/norm#": "conv{s1}_block{b}_{i0}_bn",
    "final_norm": "post_bn",
}


_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

_KERAS_LEAVES = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A library's tensor names and axis order.

    Attributes:
      name: the value of ``save_weights(layout=…)``.
      tables: tables by the kind of network, empty if there is none: with norms after the
        convolutions, with pre-activation, and with an average pool in the shortcut.
      blocks: matches a block's stage and index in a tensor's name.
      torch: whether kernels are (out, in, height, width) and (out, in).
    """

    name: str
    tables: tuple[dict[str, str], dict[str, str], dict[str, str]]
    blocks: re.Pattern[str]
    torch: bool = True

    def tensor_name(self, model: nn.Module, path: Path) -> str | None:
        """Return the name of our leaf without a model prefix, or None if the layout has none.

        That of a head on a backbone is its name beside the backbone.
        """
        collection, *modules, leaf = path
        backbone, inside = find_backbone(model)
        if inside and modules[0] == inside[0]:
            return self.tensor_name(backbone, (collection, *modules[1:], leaf))
        if self is FLAX:
            return "/".join(path)
        if inside:
            name = torchvision_module(model, modules) if self in (TORCHVISION, TIMM) else None
            return name and f"{name}.{_TORCH_LEAVES[leaf]}"
        block = re.fullmatch(r"stage(\d+)_block(\d+)", modules[0])
        rest = "/".join(["block", *modules[1:]] if block else modules)
        number = re.search(r"\d+", rest)
        fields = {"s": int(block[1]), "b": int(block[2])} if block else {}
        fields |= {"i": int(number[0])} if number else {}
        fields |= {f"{key}0": value - 1 for key, value in fields.items()}
        fields |= {"s1": fields["s"] + 1} if block else {}
        plain, preactivation, average_pool = self.tables
        table = average_pool if model.shortcut == "average_pool" else plain
        table = preactivation if model.preactivation else table
        template = table.get(rest) or table.get(re.sub(r"\d+", "#", rest))
        if template is None or leaf not in _TORCH_LEAVES:  # an own block may have any
            return None
        if self.torch:
            return f"{template.format(**fields)}.{_TORCH_LEAVES[leaf]}"
        if self is TRANSFORMERS_FLAX:
            return f"{path[0]}/{template.format(**fields).replace('.', '/')}/{leaf}"
        variable = "beta" if leaf == "bias" and "norm" in modules[-1] else leaf
        return f"{template.format(**fields)}/{_KERAS_LEAVES.get(variable, variable)}"

    def file_name(self, model: nn.Module, path: Path) -> str:
        """Return the name of our leaf in the file of a complete model.

        Raises:
          WeightsError: the layout has no name for the leaf.
        """
        if self is FLAX:
            return "/".join(path)
        name, (_, inside) = self.tensor_name(model, path), find_backbone(model)
        if name is None or (inside and self is not TORCHVISION):
            others = ", ".join(layout for layout in SAVED if layout != self.name)
            raise WeightsError(
                f"the {self.name} layout has no name for {'/'.join(path[1:])} of this network;"
                f" save with another layout of {others}"
            )
        if inside and path[1] == inside[0]:
            return f"backbone.{name}"
        if self.name == "huggingface" and path[1] != "head":
            return ("bit." if model.preactivation else "resnet.") + name
        return name

    def is_pointwise(self, model: ResNet, path: Path) -> bool:
        """Return whether our linear kernel is a 1×1 convolution in this layout."""
        if self.name != "timm" or path[-1] != "kernel":
            return False
        return (model.preactivation and path[1] == "head") or "se" in path


_N = "([0-9]{1,3})"
_TORCH_BLOCKS = re.compile(rf"\blayer{_N}\.{_N}\.|\bstages\.{_N}\.blocks\.{_N}\.")
_HUGGINGFACE_BLOCKS = re.compile(rf"\bencoder\.stages\.{_N}\.layers\.{_N}\.")
_TRANSFORMERS_FLAX_BLOCKS = re.compile(
    rf"\b(?:params|batch_stats)/encoder/stages/{_N}/layers/{_N}/"
)
_KERAS_BLOCKS = re.compile(rf"\bconv{_N}_block{_N}_")
_OUR_BLOCKS = re.compile(rf"\b(?:params|batch_stats)/stage{_N}_block{_N}/")

# Only timm has an average pool in the shortcut, which shifts the convolution's number.
TORCHVISION = Layout("torchvision", (_TORCHVISION, {}, {}), _TORCH_BLOCKS)
TIMM = Layout("timm", (_TIMM, _TIMM_PREACTIVATION, _TIMM_AVERAGE_POOL), _TORCH_BLOCKS)
HUGGINGFACE = Layout(
    "huggingface", (_HUGGINGFACE, _HUGGINGFACE_BIT, _HUGGINGFACE), _HUGGINGFACE_BLOCKS
)
# The Flax networks that transformers had up to version 4.
TRANSFORMERS_FLAX = Layout(
    "huggingface flax", (_HUGGINGFACE, {}, _HUGGINGFACE), _TRANSFORMERS_FLAX_BLOCKS, torch=False
)
KERAS = Layout("keras", (_KERAS, _KERAS_PREACTIVATION, _KERAS), _KERAS_BLOCKS, torch=False)
FLAX = Layout("flax", ({}, {}, {}), _OUR_BLOCKS, torch=False)

LAYOUTS = (TIMM, HUGGINGFACE, TRANSFORMERS_FLAX, KERAS, FLAX)  # that names are recognized by
SAVED = {layout.name: layout for layout in (TORCHVISION, TIMM, HUGGINGFACE, FLAX)}

_STEM = re.compile(
    r"conv1\b|bn1\b|maxpool\.|conv1_(conv|bn)/|stem|embedder\.|(params|batch_stats)/(stem|embedder)"
)
_TIMM_ONLY = re.compile(r"\bse\.(fc|conv)|\bconv1\.\d|\bdownsample\.2|\bstages\.")


@dataclasses.dataclass(frozen=True)
class DetectedLayout:
    """The layout and the number of blocks per stage of a file.

    Attributes:
      layout: the layout to read with: timm's also for torchvision, whose names it extends.
      name: the layout's name for messages.
      stage_sizes: blocks in each stage.
    """

    layout: Layout
    name: str
    stage_sizes: tuple[int, ...]

    def in_network(self, name: str) -> bool:
        """Return whether a tensor's name is in the stem or a block, so must be loaded."""
        return bool(self.layout.blocks.match(name) or _STEM.match(name))


# Fields that names and shapes do not show; save_weights writes them to the file's metadata.
_METADATA_FIELDS = (
    "stride_conv stride_block shortcut preactivation norm_epsilon weight_standardization stem norm"
    " activation antialias activate_identity zero_pad_pool"
).split()


def metadata_fields(model: nn.Module) -> dict[str, Any]:
    """Return the fields that affect this network but do not show in its tensors' names."""
    backbone, inside = find_backbone(model)
    if inside:
        return metadata_fields(backbone) | dense_fields(model)
    fields = {field: getattr(model, field) for field in _METADATA_FIELDS}
    if model.block != "bottleneck":
        del fields["stride_conv"]
    if not model.preactivation:
        del fields["zero_pad_pool"]
    if not model.preactivation or model.block != "residual":
        del fields["activate_identity"]
    parts = ("block", "norm", "conv", "activation")
    own = {part: getattr(model, part) for part in parts}
    own = {part: value for part, value in own.items() if not isinstance(value, (str, type(None)))}
    return fields | {part: f"own {label(value)}" for part, value in own.items()}


def unsupported_fields(layout: Layout, network: nn.Module) -> list[str]:
    """Return the fields, as ``name=value``, that no network of the layout's library has."""
    if layout is FLAX:
        return []
    model, _ = find_backbone(network)
    supported: dict[str, tuple[Any, ...]] = TORCHVISION_FIELDS | {
        "stride_conv": ("3x3",),
        "stride_block": ("first",),
        "shortcut": ("projection",),
        "norm_epsilon": (1e-5,),
        "stem": ("imagenet",),
        "activation": ("relu",),
        "antialias": (None,),
        "block": (),
        "conv": (),
        "norm": ("group",) if model.preactivation else ("batch",),  # BiT, all others
    }
    if layout is TIMM:
        supported |= {"norm": ("batch", "group")}
        supported |= {"shortcut": ("projection", "average_pool", "projection_3x3")}
        supported |= {"stem": ("imagenet", "deep", "tiered", "deep_conv")}
        supported |= {"antialias": (None, "blur", "average"), "activate_identity": (False,)}
        if model.preactivation:
            supported |= {"stem": ("imagenet", "deep", "tiered"), "antialias": (None,)}
    if layout is HUGGINGFACE:
        supported |= {"zero_pad_pool": (True,)}
        del supported["stride_conv"]  # its downsample_in_bottleneck sets it
    return [
        f"{field}={value!r}"
        for field, value in metadata_fields(network).items()
        if value not in supported.get(field, (value,))
    ]


def detect_layout(names: Iterable[str]) -> DetectedLayout | None:
    """Return the layout whose block names begin ``names``, or None."""
    names = list(names)
    for layout in LAYOUTS:
        matches = [match for name in names if (match := layout.blocks.match(name))]
        if not matches:
            continue
        blocks = {tuple(int(n) for n in match.groups() if n) for match in matches}
        counts = collections.Counter(stage for stage, _ in blocks)
        sizes = tuple(counts[stage] for stage in sorted(counts))
        is_torchvision = layout is TIMM and not any(map(_TIMM_ONLY.search, names))
        display_name = TORCHVISION.name if is_torchvision else layout.name
        return DetectedLayout(layout, display_name, sizes)
    return None
