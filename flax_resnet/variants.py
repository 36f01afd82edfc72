"""Table of named networks: a variant is one line of fields of :class:`ResNet`."""

import dataclasses
import inspect
from functools import partial
from typing import Any

from flax import linen as nn

from flax_resnet.registry import MODELS
from flax_resnet.resnet import FeatureInfo, ResNet

Fields = dict[str, Any]

# He et al. 2015 (arXiv:1512.03385), table 1, with the stride in the 3×3 as in torchvision.
_IMAGENET: dict[str, Fields] = {
    "resnet18": dict(stage_sizes=(2, 2, 2, 2), block="residual"),
    "resnet34": dict(stage_sizes=(3, 4, 6, 3), block="residual"),
    "resnet50": dict(stage_sizes=(3, 4, 6, 3)),
    "resnet101": dict(stage_sizes=(3, 4, 23, 3)),
    "resnet152": dict(stage_sizes=(3, 8, 36, 3)),
}

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

# Xie et al. 2016 (arXiv:1611.05431), table 1: 32 groups of 4 channels are 128 channels, twice
# the width. Zagoruyko & Komodakis 2016 (arXiv:1605.07146), section 3.
_WIDER: dict[str, Fields] = {
    "resnext50_32x4d": _IMAGENET["resnet50"] | dict(groups=32, width_multiplier=2),
    "resnext101_32x8d": _IMAGENET["resnet101"] | dict(groups=32, width_multiplier=4),
    "resnext101_64x4d": _IMAGENET["resnet101"] | dict(groups=64, width_multiplier=4),
    "wide_resnet50_2": _IMAGENET["resnet50"] | dict(width_multiplier=2),
    "wide_resnet101_2": _IMAGENET["resnet101"] | dict(width_multiplier=2),
}

_DEEP: Fields = dict(stem="deep", shortcut="average_pool")
_TWEAKED: dict[str, Fields] = {
    # Hu et al. 2017 (arXiv:1709.01507), table 1.
    "seresnet50": _IMAGENET["resnet50"] | dict(se_ratio=1 / 16),
    # ResNet-D: He et al. 2018 (arXiv:1812.01187), section 4.
    "resnet50d": _IMAGENET["resnet50"] | _DEEP,
    "resnet101d": _IMAGENET["resnet101"] | _DEEP,
    # Bello et al. 2021 (arXiv:2103.07579), section 4.3.
    "resnetrs50": _IMAGENET["resnet50"] | _DEEP | dict(stem="deep_conv", se_ratio=1 / 4),
    # Wu & He 2018 (arXiv:1803.08494), section 4.1.
    "resnet50_gn": _IMAGENET["resnet50"] | dict(norm="group"),
    # Big Transfer: Kolesnikov et al. 2019 (arXiv:1912.11370), section 3.
    "resnetv2_50x1_bit": _IMAGENET["resnet50"]
    | dict(preactivation=True, norm="group", weight_standardization=True),
}


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


VARIANTS: dict[str, Fields] = (
    _IMAGENET
    | {f"{name}_v1": _IMAGENET[name] | _V1 for name in ("resnet50", "resnet101", "resnet152")}
    | {f"{name}v2": fields | _V2 for name, fields in _IMAGENET.items()}
    | _WIDER
    | _TWEAKED
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

# The letters of arXiv:1512.03385, section 3.3.
_SHORTCUT_LETTERS = {"A": "zero_pad", "B": "projection", "C": "projection_all"}


def list_models() -> list[str]:
    """Return the valid names of :func:`create_model`, in the order of the table."""
    return list(MODELS)


def create_model(name: str, **fields: Any) -> ResNet:
    """Return the named network.

    >>> create_model("resnet50", num_classes=10, shortcut="zero_pad")

    Args:
      name: one of :func:`list_models`.
      **fields: override any field of :class:`ResNet`, or arguments of an own model's function.
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
            network = "ResNet" if MODELS.owner(name) is None else f"the model {name!r}"
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
