"""Table of named networks: a variant is one line of fields of :class:`ResNet`."""

import dataclasses
import fnmatch
import inspect
from functools import partial
from typing import Any

from flax import linen as nn

from flax_resnet.dense.variants import DENSE
from flax_resnet.registry import MODELS
from flax_resnet.resnet import FeatureInfo, ResNet

Fields = dict[str, Any]

# Blocks per stage: He et al. 2015 (arXiv:1512.03385), table 1; Bello et al. 2021
# (arXiv:2103.07579); timm's small networks.
_STAGES = {10: (1,) * 4, 14: (1,) * 4, 18: (2,) * 4, 26: (2,) * 4, 34: (3, 4, 6, 3)}
_STAGES |= {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
_STAGES |= {269: (3, 30, 48, 8), 270: (4, 29, 53, 4), 350: (4, 36, 72, 4), 420: (4, 44, 87, 4)}


def _depth(layers: int) -> Fields:
    """Return the blocks of a depth, with the stride in the 3×3 as in torchvision."""
    block = "residual" if layers in (10, 18, 34) else "bottleneck"
    return dict(stage_sizes=_STAGES[layers], block=block)


_IMAGENET = {f"resnet{layers}": _depth(layers) for layers in (18, 34, 50, 101, 152)}

# Keras Applications: the stride in the first 1×1, as in the paper, and pre-activation networks
# with the stride in the last block of a stage.
_KERAS: Fields = dict(norm_epsilon=1.001e-5, norm_momentum=0.99)
_V1: Fields = dict(stride_conv="1x1") | _KERAS
_V2: Fields = _KERAS | dict(
    preactivation=True,
    stride_block="last",
    shortcut="projection_channels",
    conv_bias="unnormalized",
)

# He et al. 2018 (arXiv:1812.01187), section 4: ResNet-C, its wide stem, ResNet-D, and ResNet-D with
# a tiered stem.
_C: Fields = dict(stem="deep")
_S: Fields = dict(stem="deep", stem_width=128)
_D: Fields = dict(stem="deep", shortcut="average_pool")
_T: Fields = dict(stem="tiered", shortcut="average_pool")
# Hu et al. 2017 (arXiv:1709.01507), table 1; Wang et al. 2019 (arXiv:1910.03151), section 3;
# Zhang 2019 (arXiv:1904.11486), section 3.2.
_SE: Fields = dict(se_ratio=1 / 16)
_ECA: Fields = dict(eca=True)
_BLUR: Fields = dict(antialias="blur")
_AA: Fields = dict(antialias="average")
# Bello et al. 2021 (arXiv:2103.07579), section 4.3.
_RS: Fields = _D | dict(stem="deep_conv", se_ratio=1 / 4)
# Pre-activation as in timm's own networks.
_PRE: Fields = dict(preactivation=True, activate_identity=False, zero_pad_pool=False)


def _x(groups: int, width: int) -> Fields:
    """Return the fields of ResNeXt (Xie et al. 2016, arXiv:1611.05431, table 1).

    Args:
      groups: number of groups.
      width: channels of each in the first stage: 32 groups of 4 channels are 128 channels, twice
        the network's width.
    """
    return dict(groups=groups, width_multiplier=groups * width // 64)


def _bit(factor: int) -> Fields:
    """Return the fields of Big Transfer (Kolesnikov et al. 2019, arXiv:1912.11370, section 3)."""
    norm: Fields = dict(norm="group", weight_standardization=True)
    return dict(preactivation=True, width=64 * factor) | norm


_DESCENDANTS: dict[str, Fields] = {
    "resnext50_32x4d": _depth(50) | _x(32, 4),
    "resnext101_32x8d": _depth(101) | _x(32, 8),
    "resnext101_64x4d": _depth(101) | _x(64, 4),
    # Zagoruyko & Komodakis 2016 (arXiv:1605.07146), section 3.
    "wide_resnet50_2": _depth(50) | dict(width_multiplier=2),
    "wide_resnet101_2": _depth(101) | dict(width_multiplier=2),
    "seresnet50": _depth(50) | _SE,
    "resnet50d": _depth(50) | _D,
    "resnet101d": _depth(101) | _D,
    "resnetrs50": _depth(50) | _RS,
    # Wu & He 2018 (arXiv:1803.08494), section 4.1.
    "resnet50_gn": _depth(50) | dict(norm="group"),
    "resnetv2_50x1_bit": _depth(50) | _bit(1),
}

# The further networks of timm, under its names.
_TIMM: dict[str, Fields] = {
    "resnet10t": _depth(10) | _T,
    "resnet14t": _depth(14) | _T,
    "resnet18d": _depth(18) | _D,
    "resnet26": _depth(26),
    "resnet26d": _depth(26) | _D,
    "resnet26t": _depth(26) | _T,
    "resnet34d": _depth(34) | _D,
    "resnet50c": _depth(50) | _C,
    "resnet50s": _depth(50) | _S,
    "resnet50t": _depth(50) | _T,
    "resnet101c": _depth(101) | _C,
    "resnet101s": _depth(101) | _S,
    "resnet152c": _depth(152) | _C,
    "resnet152d": _depth(152) | _D,
    "resnet152s": _depth(152) | _S,
    "resnet200": _depth(200),
    "resnet200d": _depth(200) | _D,
    "resnext50d_32x4d": _depth(50) | _D | _x(32, 4),
    "resnext101_32x4d": _depth(101) | _x(32, 4),
    "resnext101_32x16d": _depth(101) | _x(32, 16),
    "resnext101_32x32d": _depth(101) | _x(32, 32),
    "seresnet18": _depth(18) | _SE,
    "seresnet34": _depth(34) | _SE,
    "seresnet50t": _depth(50) | _SE | _T,
    "seresnet101": _depth(101) | _SE,
    "seresnet152": _depth(152) | _SE,
    "seresnet152d": _depth(152) | _SE | _D,
    "seresnet200d": _depth(200) | _SE | _D,
    "seresnet269d": _depth(269) | _SE | _D,
    "seresnext26d_32x4d": _depth(26) | _SE | _D | _x(32, 4),
    "seresnext26t_32x4d": _depth(26) | _SE | _T | _x(32, 4),
    "seresnext50_32x4d": _depth(50) | _SE | _x(32, 4),
    "seresnext101_32x4d": _depth(101) | _SE | _x(32, 4),
    "seresnext101_32x8d": _depth(101) | _SE | _x(32, 8),
    "seresnext101_64x4d": _depth(101) | _SE | _x(64, 4),
    "seresnext101d_32x8d": _depth(101) | _SE | _D | _x(32, 8),
    # Hu et al. 2017 (arXiv:1709.01507), appendix.
    "senet154": _depth(152)
    | _SE
    | _S
    | _x(64, 4)
    | dict(shortcut="projection_3x3", reduce_first=2),
    "ecaresnet26t": _depth(26) | _ECA | _T,
    "ecaresnet50d": _depth(50) | _ECA | _D,
    "ecaresnet50t": _depth(50) | _ECA | _T,
    "ecaresnet101d": _depth(101) | _ECA | _D,
    "ecaresnet200d": _depth(200) | _ECA | _D,
    "ecaresnet269d": _depth(269) | _ECA | _D,
    "ecaresnetlight": dict(stage_sizes=(1, 1, 11, 3), shortcut="average_pool") | _ECA,
    "ecaresnext26t_32x4d": _depth(26) | _ECA | _T | _x(32, 4),
    "ecaresnext50t_32x4d": _depth(50) | _ECA | _T | _x(32, 4),
    "resnetblur18": _depth(18) | _BLUR,
    "resnetblur50": _depth(50) | _BLUR,
    "resnetblur50d": _depth(50) | _BLUR | _D,
    "resnetblur101d": _depth(101) | _BLUR | _D,
    "resnetaa34d": _depth(34) | _AA | _D,
    "resnetaa50": _depth(50) | _AA,
    "resnetaa50d": _depth(50) | _AA | _D,
    "resnetaa101d": _depth(101) | _AA | _D,
    "seresnetaa50d": _depth(50) | _SE | _AA | _D,
    "seresnextaa101d_32x8d": _depth(101) | _SE | _AA | _D | _x(32, 8),
    "seresnextaa201d_32x8d": _SE | _AA | _D | _S | _x(32, 8) | dict(stage_sizes=(3, 24, 36, 4)),
    "resnetv2_18": _depth(18) | _PRE,
    "resnetv2_18d": _depth(18) | _PRE | _D,
    "resnetv2_34": _depth(34) | _PRE,
    "resnetv2_34d": _depth(34) | _PRE | _D,
    "resnetv2_50": _depth(50) | _PRE,
    "resnetv2_50d": _depth(50) | _PRE | _D,
    "resnetv2_50d_gn": _depth(50) | _PRE | _D | dict(norm="group"),
    "resnetv2_50t": _depth(50) | _PRE | _T,
    "resnetv2_101": _depth(101) | _PRE,
    "resnetv2_101d": _depth(101) | _PRE | _D,
    "resnetv2_152": _depth(152) | _PRE,
    "resnetv2_152d": _depth(152) | _PRE | _D,
    "resnetv2_50x3_bit": _depth(50) | _bit(3),
    "resnetv2_101x1_bit": _depth(101) | _bit(1),
    "resnetv2_101x3_bit": _depth(101) | _bit(3),
    "resnetv2_152x2_bit": _depth(152) | _bit(2),
    "resnetv2_152x4_bit": _depth(152) | _bit(4),
} | {f"resnetrs{layers}": _depth(layers) | _RS for layers in (101, 152, 200, 270, 350, 420)}


def _cifar(depth: int) -> Fields:
    """Return 6n + 2 layers, 16-32-64 channels, parameterless shortcuts (arXiv:1512.03385, 4.2)."""
    return dict(
        stage_sizes=((depth - 2) // 6,) * 3,
        block="residual",
        width=16,
        stem="cifar",
        shortcut="zero_pad",
        num_classes=10,
    )


def _cifar_bottleneck(depth: int) -> Fields:
    """Return 9n + 2 layers, with bottlenecks and projections (arXiv:1603.05027, section 4.1)."""
    return _cifar(depth) | dict(
        stage_sizes=((depth - 2) // 9,) * 3, block="bottleneck", shortcut="projection"
    )


def _wide(depth: int, factor: int) -> Fields:
    """Return 6n + 4 layers, ``factor`` times as wide (arXiv:1605.07146, table 1)."""
    return _cifar(depth - 2) | dict(
        width=16 * factor, stem_width=16, preactivation=True, shortcut="projection"
    )


# The networks that timm has under the same names.
TIMM_NAMES = frozenset(_IMAGENET | _DESCENDANTS | _TIMM)

VARIANTS: dict[str, Fields] = (
    _IMAGENET
    | {f"{name}_v1": _IMAGENET[name] | _V1 for name in ("resnet50", "resnet101", "resnet152")}
    | {f"{name}v2": fields | _V2 for name, fields in _IMAGENET.items()}
    | _DESCENDANTS
    | _TIMM
    | {f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110, 1202)}
    | {
        "resnet110v2": _cifar(110) | dict(preactivation=True),
        "resnet164v2": _cifar_bottleneck(164) | dict(preactivation=True),
        "resnet1001v2": _cifar_bottleneck(1001) | dict(preactivation=True),
        "wrn16_8": _wide(16, 8),
        "wrn28_10": _wide(28, 10),
        "wrn40_2": _wide(40, 2),
        "plain18": _IMAGENET["resnet18"] | dict(shortcut="none"),
        "plain34": _IMAGENET["resnet34"] | dict(shortcut="none"),
    }
    | {f"plain{depth}": _cifar(depth) | dict(shortcut="none") for depth in (20, 32, 44, 56)}
)

register_model = MODELS.register
for _name, _fields in VARIANTS.items():
    register_model(_name, partial(ResNet, **_fields))
for _name, _make in DENSE.items():
    register_model(_name, _make)

# The letters of arXiv:1512.03385, section 3.3.
_SHORTCUT_LETTERS = {"A": "zero_pad", "B": "projection", "C": "projection_all"}


def list_models(pattern: str = "*") -> list[str]:
    """Return the valid names of :func:`create_model`, in the order of the table.

    >>> list_models("resnetrs*")
    ['resnetrs50', 'resnetrs101', 'resnetrs152', …]

    Args:
      pattern: only names that match it, with ``*``, ``?`` and ``[…]`` as in file names.
    """
    return fnmatch.filter(MODELS, pattern)


def create_model(name: str, **fields: Any) -> nn.Module:
    """Return the named network.

    >>> create_model("resnet50", num_classes=10, shortcut="zero_pad")
    >>> create_model("deeplabv3_resnet50", num_classes=21, backbone="resnet50d", output_stride=16)

    Args:
      name: one of :func:`list_models`.
      **fields: override any field of :class:`ResNet`, for a network with a head on a ResNet those
        of :class:`SegmentationModel`, too, or arguments of an own model's function.
        ``shortcut`` may also be one of the paper's options ``"A"``, ``"B"`` and ``"C"``
        (arXiv:1512.03385, section 3.3).

    Raises:
      ValueError: for an unknown name, field or value; the message lists the valid ones.
    """
    if name not in MODELS:
        raise ValueError(MODELS.unknown(name))
    make = MODELS[name]
    valid = _arguments(make)
    for field in fields:
        if field not in valid:
            network = "ResNet" if name in VARIANTS else f"the model {name!r}"
            raise ValueError(f"{network} has no field {field!r}; valid are {', '.join(valid)}")
    if "shortcut" in fields:
        fields["shortcut"] = _SHORTCUT_LETTERS.get(fields["shortcut"], fields["shortcut"])
    try:
        model = make(**fields)
    except TypeError as error:
        raise ValueError(f"the model {name!r} cannot be made: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model {name!r} must be a function that returns a module: {model!r}")
    return model


def _arguments(make: Any) -> list[str]:
    """Return the arguments of a model's function, with ``**fields`` those of ResNet."""
    parameters = inspect.signature(make).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(names) < len(parameters):
        names += [field.name for field in dataclasses.fields(ResNet) if field.name not in names]
    return [name for name in names if name not in ("parent", "name")]


ResNet18 = partial(create_model, "resnet18")
ResNet34 = partial(create_model, "resnet34")
ResNet50 = partial(create_model, "resnet50")
ResNet101 = partial(create_model, "resnet101")
ResNet152 = partial(create_model, "resnet152")


def feature_info(name: str, **fields: Any) -> dict[str, FeatureInfo]:
    """Return stride and channels of each map of the named network's ``endpoints``.

    Takes the arguments of :func:`create_model`.

    >>> feature_info("resnet50", output_stride=16)["stage4"]
    FeatureInfo(stride=16, channels=2048)
    """
    return create_model(name, **fields).feature_info
