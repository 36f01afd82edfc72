"""Table of a network: layers, output, blocks, parameters and multiply-adds of each stage."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.dense.on_backbone import find_backbone
from flax_resnet.init import abstract_variables
from flax_resnet.own_layers import label
from flax_resnet.resnet import ResNet
from flax_resnet.stems import STEMS


class Row(NamedTuple):
    """A stage, as in table 1 of He et al. 2015 (arXiv:1512.03385)."""

    stage: str
    layers: str
    output: tuple[int, ...]  # (H, W, C); (C,) for the head
    blocks: int
    parameters: int
    multiply_adds: int


class Summary(NamedTuple):
    """The rows of all stages, from the stem to the head; ``str`` returns the table with totals."""

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Number of values in ``params``, without running statistics."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and linear layers, for one image."""
        return sum(row.multiply_adds for row in self.rows)

    def __str__(self) -> str:
        blocks = sum(row.blocks for row in self.rows)
        table = [("stage", "layers", "output", "blocks", "parameters", "multiply-adds")]
        for row in (*self.rows, Row("total", "", (), blocks, self.parameters, self.multiply_adds)):
            counts = (str(row.blocks or ""), f"{row.parameters:,}", f"{row.multiply_adds:,}")
            table.append((row.stage, row.layers, "×".join(map(str, row.output)), *counts))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        cells = [f"{{:{align}{width}}}" for align, width in zip("<<<>>>", widths, strict=True)]
        return "\n".join("  ".join(cells).format(*line).rstrip() for line in table)


def summarize(
    model: nn.Module, image_size: int | tuple[int, int] = 224, channels: int = 3
) -> Summary:
    """Count the parameters and the multiply-adds per image of each stage, by abstract evaluation.

    Args:
      model: the network.
      image_size: side of a square image, or ``(H, W)``.
      channels: channels of the image.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width, channels) < 1:
        raise ValueError(
            f"image_size and channels must be at least 1, not {image_size} and {channels}"
        )
    images = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    variables = abstract_variables(model, images)
    outputs, layers = _trace(model, variables, images)

    backbone, inside = find_backbone(model)
    parameters = defaultdict(int, dict.fromkeys(outputs, 0))
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]:
        parameters[_stage([entry.key for entry in path], inside)] += leaf.size

    multiply_adds = defaultdict(int, dict.fromkeys(outputs, 0))
    for layer in layers:
        products = math.prod(layer.output[1:]) * math.prod(layer.kernel[:-1])
        multiply_adds[_stage(layer.path, inside)] += products

    if not hasattr(backbone, "stage_sizes"):  # another module
        totals = sum(parameters.values()), sum(multiply_adds.values())
        return Summary((Row("network", label(type(model)), outputs["head"], 0, *totals),))
    blocks = dict(zip(outputs, (0, *backbone.stage_sizes), strict=False))
    layers = [
        layer._replace(path=layer.path[len(inside) :])
        for layer in layers
        if layer.path[: len(inside)] == inside
    ]
    describe = _describe_dense_head if inside else _describe_head
    return Summary(
        tuple(
            Row(
                stage,
                _describe(backbone, stage, layers) if stage in blocks else describe(model, stage),
                outputs[stage],
                blocks.get(stage, 0),
                parameters[stage],
                multiply_adds[stage],
            )
            for stage in outputs
        )
    )


class _Layer(NamedTuple):
    """A convolution or linear layer, in the order in which they are called."""

    path: tuple[str, ...]
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    groups: int

    def __str__(self) -> str:
        *window, _, features = self.kernel
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{'×'.join(map(str, window)) or 'linear'}, {features}{groups}"


def _stage(path: Sequence[str], inside: Sequence[str]) -> str:
    """Return the stage to which a layer belongs by its path.

    Args:
      path: names of modules, from the network to the layer.
      inside: path of the backbone.
    """
    if inside and path[0] != inside[0]:
        return path[0]  # a head on the backbone
    layer = path[len(inside)]
    if layer.startswith("stage"):
        return layer.split("_")[0]
    return "stem" if layer.startswith("stem") else "head"


def _trace(model: nn.Module, variables, images) -> tuple[dict[str, tuple], list[_Layer]]:
    """Return output shapes by stage and head, and the convolutions and linear layers.

    A head that only training uses has the shape ``()``.
    """
    maps, layers = {}, []

    def record(next_function, args, kwargs, context):
        output, module = next_function(*args, **kwargs), context.module
        if context.method_name == "endpoints":
            maps.update(output)
        elif isinstance(module, nn.Conv | nn.Dense):
            kernel = module.variables["params"]["kernel"]
            groups = getattr(module, "feature_group_count", 1)
            layers.append(_Layer(module.path, kernel.shape, output.shape, groups))
        return output

    with nn.intercept_methods(record):
        head = jax.eval_shape(model.apply, variables, images)
    outputs = {stage: leaf.shape[1:] for stage, leaf in (maps | {"head": head}).items()}
    return outputs | ({"aux_head": ()} if "aux_head" in variables["params"] else {}), layers


# The stem's pool by the filter of its stride.
_POOLS = {None: "3×3 max-pool", "blur": "3×3 max-pool with blur", "average": "2×2 average pool"}


def _describe_head(model: ResNet, stage: str) -> str:
    return "average pool" + (f"; linear, {model.num_classes}" if model.num_classes else "")


def _describe_dense_head(model: nn.Module, stage: str) -> str:
    return f"{model.head}, {model.num_classes}" if stage == "head" else "fcn, in training only"


def _describe(model: ResNet, stage: str, layers: list[_Layer]) -> str:
    """Describe a stage's layers: kernel sizes and channels, those of a block in brackets.

    Args:
      model: the ResNet.
      stage: ``"stem"``, ``"stage1"``, ….
      layers: of the network, with paths inside the ResNet.
    """
    if stage == "stem":
        pool = [_POOLS[model.antialias]] if STEMS[model.stem].pool else []
        stem = [str(layer) for layer in layers if layer.path[0].startswith("stem")]
        return "; ".join(stem + pool)
    blocks = model.stage_sizes[int(stage.removeprefix("stage")) - 1]
    block = [
        str(layer)
        for layer in layers
        if layer.path[0] == f"{stage}_block1" and not {"se", "eca", "shortcut"} & set(layer.path)
    ]
    return f"[{'; '.join(block)}] × {blocks}"
