"""What each layout calls our modules: one table a layout, for every variant.

A key is a module's path here, with ``block`` for ``stageS_blockB`` and ``#`` for a number;
an exact key comes before one with ``#``. In the value stand ``{s}`` and ``{b}`` for the
block's stage and index, ``{i}`` for the module's own number, all counted from 1, and
``{s0}``, ``{b0}``, ``{i0}`` counted from 0 (``{s1}`` from 2). The names are those that the
published checkpoints of each library have.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax_resnet.resnet import ResNet
from flax_resnet.weights.leaves import Path
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
}

# The pool stands in the sequence before the convolution.
_TIMM_AVERAGE_POOL = _TIMM | {
    "block/shortcut/conv": "layer{s}.{b0}.downsample.1",
    "block/shortcut/norm": "layer{s}.{b0}.downsample.2",
}

_TIMM_PREACTIVATION = {
    "stem_conv": "stem.conv",
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

# Its pre-activation nets are those of Big Transfer.
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

# A norm before a convolution has the number of the convolution that it follows.
_KERAS_PREACTIVATION = _KERAS | {
    "block/norm1": "conv{s1}_block{b}_preact_bn",
    "block/norm#": "conv{s1}_block{b}_{i0}_bn",
    "final_norm": "post_bn",
}


def _timm(model: ResNet) -> dict[str, str]:
    if model.preactivation:
        return _TIMM_PREACTIVATION
    return _TIMM_AVERAGE_POOL if model.shortcut == "average_pool" else _TIMM


def _torchvision(model: ResNet) -> dict[str, str]:
    # An average pool before a shortcut's convolution would move its number: timm's alone.
    plain = not model.preactivation and model.shortcut != "average_pool"
    return _TORCHVISION if plain else {}


def _huggingface(model: ResNet) -> dict[str, str]:
    return _HUGGINGFACE_BIT if model.preactivation else _HUGGINGFACE


def _keras(model: ResNet) -> dict[str, str]:
    return _KERAS_PREACTIVATION if model.preactivation else _KERAS


_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

_KERAS_LEAVES = {"kernel": "kernel", "scale": "gamma", "mean": "moving_mean"} | {
    "var": "moving_variance"
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A library's way to name tensors and order their axes.

    Attributes:
      name: as in ``save_weights(layout=…)``.
      modules: the table for a network; the empty one where the names are our own.
      blocks: finds a block's stage and index in a tensor's name.
      torch: whether kernels are (out, in, height, width) and (out, in).
    """

    name: str
    modules: Callable[[ResNet], Mapping[str, str]]
    blocks: re.Pattern[str]
    torch: bool = True

    def tensor(self, model: ResNet, path: Path) -> str | None:
        """The name of our leaf, as in a bare backbone; None where the layout has none."""
        _, *modules, leaf = path
        if self.name == "flax":
            return "/".join(path)
        block = re.fullmatch(r"stage(\d+)_block(\d+)", modules[0])
        rest = "/".join(["block", *modules[1:]] if block else modules)
        number = re.search(r"\d+", rest)
        fields = {"s": int(block[1]), "b": int(block[2])} if block else {}
        fields |= {"i": int(number[0])} if number else {}
        fields |= {f"{key}0": value - 1 for key, value in fields.items()}
        fields |= {"s1": fields["s"] + 1} if block else {}
        table = self.modules(model)
        template = table.get(rest) or table.get(re.sub(r"\d+", "#", rest))
        if template is None:
            return None
        if self.torch:
            return f"{template.format(**fields)}.{_TORCH_LEAVES[leaf]}"
        variable = "beta" if leaf == "bias" and "norm" in modules[-1] else leaf
        return f"{template.format(**fields)}/{_KERAS_LEAVES.get(variable, variable)}"

    def saved(self, model: ResNet, path: Path) -> str:
        """The name of our leaf in a whole model's file.

        Raises WeightsError where the layout has none.
        """
        name = self.tensor(model, path)
        if name is None:
            raise WeightsError(
                f"the {self.name} layout has no name for {'/'.join(path[1:])} of this network;"
                f" save with another of {', '.join(SAVED)}"
            )
        if self.name == "huggingface" and path[1] != "head":
            return ("bit." if model.preactivation else "resnet.") + name
        return name

    def is_pointwise(self, model: ResNet, path: Path) -> bool:
        """Whether a linear kernel of ours is a 1×1 convolution's in this layout."""
        head = model.preactivation and path[1] == "head"
        return self.name == "timm" and path[-1] == "kernel" and (head or "se" in path)


_TORCH_BLOCKS = re.compile(r"\blayer(\d+)\.(\d+)\.|\bstages\.(\d+)\.blocks\.(\d+)\.")
_HUGGINGFACE_BLOCKS = re.compile(r"\bencoder\.stages\.(\d+)\.layers\.(\d+)\.")
_KERAS_BLOCKS = re.compile(r"\bconv(\d+)_block(\d+)_")
_OUR_BLOCKS = re.compile(r"\b(?:params|batch_stats)/stage(\d+)_block(\d+)/")

TORCHVISION = Layout("torchvision", _torchvision, _TORCH_BLOCKS)
TIMM = Layout("timm", _timm, _TORCH_BLOCKS)
HUGGINGFACE = Layout("huggingface", _huggingface, _HUGGINGFACE_BLOCKS)
KERAS = Layout("keras", _keras, _KERAS_BLOCKS, torch=False)
FLAX = Layout("flax", lambda _: {}, _OUR_BLOCKS, torch=False)

SAVED = {layout.name: layout for layout in (TORCHVISION, TIMM, HUGGINGFACE, FLAX)}

_STEM = re.compile(
    r"conv1\b|bn1\b|maxpool\.|conv1_(conv|bn)/|stem|embedder\.|(params|batch_stats)/stem"
)
_TIMM_ONLY = re.compile(r"\bse\.fc|\bconv1\.\d|\bdownsample\.2|\bstages\.")


@dataclasses.dataclass(frozen=True)
class DetectedLayout:
    """A file's layout, and how many blocks each stage has in it.

    Attributes:
      layout: reads the file: timm's for torchvision's too, whose names it extends.
      name: what to call the layout.
      stage_sizes: blocks in each stage.
      prefix: what a wrapper put before the blocks' names.
    """

    layout: Layout
    name: str
    stage_sizes: tuple[int, ...]
    prefix: str

    def plain(self, name: str) -> str:
        """A tensor's name without wrappers' prefixes, such as ``module.`` or ``backbone.``.

        The head may stand further out than the blocks: ``model.fc`` beside
        ``model.backbone.layer1``.
        """
        steps = re.findall(r"[^./]*[./]", self.prefix)
        for end in range(len(steps), 0, -1):
            if name.startswith(outer := "".join(steps[:end])):
                return name.removeprefix(outer)
        return name

    def in_network(self, name: str) -> bool:
        """Whether a plain name is one of the stem or a block, so not to be left out."""
        return bool(self.layout.blocks.match(name) or _STEM.match(name))


# What names and shapes do not tell of a network; save_weights writes it into the file.
_UNNAMED = ("stride_conv", "stride_block", "shortcut", "preactivation", "norm_epsilon")
_UNNAMED += ("weight_standardization", "stem", "norm")


def unnamed_fields(model: ResNet) -> dict[str, Any]:
    """The network's fields that its tensors' names do not show, as far as they matter to it."""
    matters = {"stride_conv": model.block == "bottleneck"}
    return {field: getattr(model, field) for field in _UNNAMED if matters.get(field, True)}


def unshared_fields(layout: Layout, model: ResNet) -> list[str]:
    """The fields, as ``name=value``, that no network of the layout's library has so."""
    if layout is FLAX:
        return []
    shared: dict[str, tuple[Any, ...]] = {
        "stride_conv": ("3x3",),
        "stride_block": ("first",),
        "shortcut": ("projection",),
        "norm_epsilon": (1e-5,),
        "stem": ("imagenet",),
        "norm": ("group",) if model.preactivation else ("batch",),  # BiT's, and all others
    }
    if layout is TIMM:
        shared |= {"norm": ("batch", "group")}
        shared |= {"shortcut": ("projection", "average_pool")}
        shared |= {"stem": ("imagenet", "deep", "deep_conv")}
    if layout is HUGGINGFACE:
        shared.pop("stride_conv")  # its downsample_in_bottleneck sets it
    fields = unnamed_fields(model)
    return [f"{k}={fields[k]!r}" for k in shared if k in fields and fields[k] not in shared[k]]


def recognise(names: Iterable[str]) -> DetectedLayout | None:
    """Finds the layout whose blocks the tensors' names name; None where none does."""
    names = list(names)
    for layout in (TIMM, HUGGINGFACE, KERAS, FLAX):
        found = [(name, match) for name in names if (match := layout.blocks.search(name))]
        if not found:
            continue
        blocks = {tuple(int(n) for n in match.groups() if n) for _, match in found}
        stages = sorted({stage for stage, _ in blocks})
        sizes = tuple(sum(s == stage for s, _ in blocks) for stage in stages)
        called = layout.name
        if layout is TIMM and not any(_TIMM_ONLY.search(name) for name in names):
            called = TORCHVISION.name
        name, match = found[0]
        return DetectedLayout(layout, called, sizes, name[: match.start()])
    return None
