"""Validation of the fields of a network."""

import math
from collections.abc import Sequence
from typing import Any

from flax_resnet import layers, own_layers
from flax_resnet.blocks import STRIDE_CONVS
from flax_resnet.downsampling import ANTIALIAS
from flax_resnet.registry import ACTIVATIONS, BLOCKS, NORMS
from flax_resnet.shortcuts import SHORTCUTS
from flax_resnet.stems import STEMS

STRIDE_BLOCKS = ("first", "last")

# Registries of the fields that may be own parts.
PARTS = {"block": BLOCKS, "norm": NORMS, "activation": ACTIVATIONS}

_CHOICES = PARTS | {
    "stem": STEMS,
    "shortcut": SHORTCUTS,
    "stride_conv": STRIDE_CONVS,
    "stride_block": STRIDE_BLOCKS,
    "conv_bias": layers.BIASES,
}
_MINIMUMS = {"num_classes": 0, "width": 1, "width_multiplier": 1, "groups": 1, "reduce_first": 1}
_FRACTIONS = ("dropout", "block_dropout", "drop_path", "se_ratio", "norm_momentum")


def check_fields(model: Any) -> None:
    """Raise ValueError, which lists the valid values, if a field of a ResNet is invalid."""
    _check_choices(model)
    own_layers.check_layers(model.norm, model.conv, model.activation)
    _check_numbers(model)
    _check_strides(model)
    _check_combinations(model)


def _check_choices(model: Any) -> None:
    for field, choices in _CHOICES.items():
        value = getattr(model, field)
        valid = (*choices, "folded") if field == "norm" else choices
        if (isinstance(value, str) or field not in PARTS) and value not in valid:
            raise ValueError(f"unknown {field} {value!r}; valid are {', '.join(valid)}")
    if model.antialias not in (None, *ANTIALIAS):
        valid = ", ".join(map(repr, (None, *ANTIALIAS)))
        raise ValueError(f"unknown antialias {model.antialias!r}; valid are {valid}")


def _check_numbers(model: Any) -> None:
    minimums = dict(_MINIMUMS)
    if model.stem_width is not None:
        # Every convolution has at least one channel.
        fractions = [fraction for *_, fraction in STEMS[model.stem].convolutions]
        minimums["stem_width"] = math.ceil(1 / min(fractions))
    for field, minimum in minimums.items():
        value = getattr(model, field)
        if not isinstance(value, int) or value < minimum:
            raise ValueError(f"{field} must be an integer of at least {minimum}, not {value!r}")
    for field in _FRACTIONS:
        value = getattr(model, field)
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"{field} must be in [0, 1), not {value!r}")
    if not model.norm_epsilon > 0:
        raise ValueError(f"norm_epsilon must be positive, not {model.norm_epsilon!r}")


def _check_strides(model: Any) -> None:
    sizes = model.stage_sizes
    if not (isinstance(sizes, Sequence) and sizes) or not all(
        isinstance(blocks, int) and blocks > 0 for blocks in sizes
    ):
        raise ValueError(f"stage_sizes must be positive integers, one per stage, not {sizes!r}")
    strides = [STEMS[model.stem].stride * 2**stage for stage in range(len(sizes))]
    if model.output_stride not in (None, *strides):
        valid = ", ".join(map(str, strides))
        raise ValueError(f"unknown output_stride {model.output_stride}; valid are {valid}")


def _check_combinations(model: Any) -> None:
    if model.groups > 1 and model.block == "residual":
        raise ValueError("groups needs block='bottleneck'; a residual block has no groups")
    if not isinstance(model.block, str):
        own_layers.check_block(model.block, model)
    inner = model.width * model.width_multiplier
    if isinstance(model.block, str) and inner % (model.groups * model.reduce_first):
        reduced = f" * reduce_first={model.reduce_first}" if model.reduce_first > 1 else ""
        raise ValueError(
            f"groups={model.groups}{reduced} must divide width * width_multiplier, the {inner}"
            " channels inside the first stage's blocks"
        )
    if model.se_ratio and model.eca:
        raise ValueError("se_ratio and eca=True exclude each other: a block has one attention")
    if model.antialias and model.stem == "deep_conv":
        raise ValueError(
            "antialias needs the max-pool that stem='deep_conv' replaces; use stem='deep'"
        )
    if model.weight_standardization and model.conv is not None:
        raise ValueError(
            "weight_standardization=True needs the network's own convolution, not conv=…"
        )
    stem_width = model.stem_width or model.width
    stem = [int(stem_width * fraction) for *_, fraction in STEMS[model.stem].convolutions]
    indivisible = [
        width for width in (model.width, inner // model.reduce_first, *stem) if width % 32
    ]
    if model.norm == "group" and indivisible:
        raise ValueError(f"norm='group' has 32 groups, which must divide {indivisible[0]} channels")
