"""The table of named networks: a variant is a line that sets ResNet's fields."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from flax_resnet.resnet import ResNet

# He et al. 2015 (arXiv:1512.03385), table 1, with the stride in the 3×3 as in torchvision.
_IMAGENET: dict[str, dict[str, Any]] = {
    "resnet18": dict(stage_sizes=(2, 2, 2, 2), block="residual"),
    "resnet34": dict(stage_sizes=(3, 4, 6, 3), block="residual"),
    "resnet50": dict(stage_sizes=(3, 4, 6, 3)),
    "resnet101": dict(stage_sizes=(3, 4, 23, 3)),
    "resnet152": dict(stage_sizes=(3, 8, 36, 3)),
}


def _cifar(depth: int) -> dict[str, Any]:
    """Section 4.2: 6n + 2 layers, 16-32-64 channels, shortcuts without parameters."""
    return dict(
        stage_sizes=((depth - 2) // 6,) * 3,
        block="residual",
        width=16,
        stem="small",
        shortcut="zero_pad",
        num_classes=10,
    )


VARIANTS: dict[str, dict[str, Any]] = _IMAGENET | {
    f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)
}


def list_models() -> list[str]:
    """Names that :func:`create_model` takes, in the order of the table."""
    return list(VARIANTS)


def create_model(name: str, **fields: Any) -> ResNet:
    """Makes the named network; ``fields`` override any field of :class:`ResNet`.

    >>> create_model("resnet50", num_classes=10, shortcut="zero_pad")

    Raises ValueError for an unknown name, field or value, naming what is valid.
    """
    if name not in VARIANTS:
        close = difflib.get_close_matches(str(name), VARIANTS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown model {name!r}{hint}; valid are {', '.join(VARIANTS)}")
    valid = [f.name for f in dataclasses.fields(ResNet) if f.name not in ("parent", "name")]
    for field in fields:
        if field not in valid:
            raise ValueError(f"ResNet has no field {field!r}; valid are {', '.join(valid)}")
    return ResNet(**VARIANTS[name] | fields)
