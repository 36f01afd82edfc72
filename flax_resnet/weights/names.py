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

_HUGGINGFACE = {
    "stem_conv": "embedder.embedder.convolution",
    "stem_norm": "embedder.embedder.normalization",
    "block/conv#": "encoder.stages.{s0}.layers.{b0}.layer.{i0}.convolution",
    "block/norm#": "encoder.stages.{s0}.layers.{b0}.layer.{i0}.normalization",
    "block/shortcut/conv": "encoder.stages.{s0}.layers.{b0}.shortcut.convolution",
    "block/shortcut/norm": "encoder.stages.{s0}.layers.{b0}.shortcut.normalization",
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
      blocks: finds a block's stage and index in a tensor's name.
      modules: the table for a network.
      root: what all names but the head's start with in a whole model; a bare backbone
        lacks it, and the tables do too.
      torch: whether kernels are (out, in, height, width) and (out, in).
    """

    name: str
    blocks: re.Pattern[str]
    modules: Callable[[ResNet], Mapping[str, str]]
    root: str = ""
    torch: bool = True

    def saved(self, model: ResNet, path: Path) -> str:
        """The name of our leaf in a whole model's file."""
        return ("" if path[1] == "head" else self.root) + self.tensor(model, path)

    def tensor(self, model: ResNet, path: Path) -> str:
        """The name of our leaf, as in a bare backbone.

        Raises WeightsError where the layout has none.
        """
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
            raise WeightsError(
                f"the {self.name} layout has no name for {'/'.join(path[1:])};"
                f" save with another of {', '.join(SAVED)}"
            )
        if self.torch:
            return f"{template.format(**fields)}.{_TORCH_LEAVES[leaf]}"
        variable = "beta" if leaf == "bias" and "norm" in modules[-1] else leaf
        return f"{template.format(**fields)}/{_KERAS_LEAVES.get(variable, variable)}"


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("torchvision", re.compile(r"\blayer(\d+)\.(\d+)\."), lambda _: _TORCHVISION),
        Layout("timm", re.compile(r"\blayer(\d+)\.(\d+)\."), lambda _: _TORCHVISION),
        Layout(
            "huggingface",
            re.compile(r"\bencoder\.stages\.(\d+)\.layers\.(\d+)\."),
            lambda _: _HUGGINGFACE,
            root="resnet.",
        ),
        Layout("keras", re.compile(r"\bconv(\d+)_block(\d+)_"), lambda _: _KERAS, torch=False),
        Layout(
            "flax",
            re.compile(r"\b(?:params|batch_stats)/stage(\d+)_block(\d+)/"),
            lambda _: {},
            torch=False,
        ),
    )
}
_STEM = re.compile(r"conv1\b|bn1\b|conv1_(conv|bn)/|stem|embedder\.|(params|batch_stats)/stem")
SAVED = ("torchvision", "timm", "huggingface", "flax")


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A layout, and how many blocks each stage has in the file."""

    layout: Layout
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


def recognise(names: Iterable[str]) -> Recognised | None:
    """Finds the layout whose blocks the tensors' names name; None where none does."""
    names = list(names)
    for layout in LAYOUTS.values():
        found = [(name, match) for name in names if (match := layout.blocks.search(name))]
        if not found:
            continue
        blocks = {tuple(int(n) for n in match.groups()) for _, match in found}
        stages = sorted({stage for stage, _ in blocks})
        sizes = tuple(sum(s == stage for s, _ in blocks) for stage in stages)
        name, match = found[0]
        return Recognised(layout, sizes, name[: match.start()])
    return None
