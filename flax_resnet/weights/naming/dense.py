"""Tensor names of torchvision's heads for segmentation: a table per kind of head.

A key is the path of our module inside ``head`` or ``aux_head``, with ``#`` for the number of a
branch; in a value, ``{i0}`` is that number counted from 0 and ``{pool}`` the index of the pooled
branch, which follows the others.
"""

import re
from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from flax_resnet.dense.on_backbone import HEADS

_PREFIXES = dict(zip(HEADS, ("classifier", "aux_classifier"), strict=True))

_FCN = {"layer1/conv": "0", "layer1/norm": "1", "classifier": "4"}
_DEEPLAB = {
    "aspp/branch#/conv": "0.convs.{i0}.0",
    "aspp/branch#/norm": "0.convs.{i0}.1",
    "aspp/pool/conv": "0.convs.{pool}.1",
    "aspp/pool/norm": "0.convs.{pool}.2",
    "aspp/project/conv": "0.project.0",
    "aspp/project/norm": "0.project.1",
    "layer1/conv": "1",
    "layer1/norm": "2",
    "classifier": "4",
}
_TABLES = {"fcn": _FCN, "deeplabv3": _DEEPLAB}


def torchvision_module(model: nn.Module, path: Sequence[str]) -> str | None:
    """Return torchvision's name of a module of a head, or None if there is none.

    Args:
      model: the network.
      path: of our module, such as ``("head", "layer1", "conv")``.
    """
    head, *modules = path
    table = _FCN if head == "aux_head" else _TABLES.get(model.head, {})
    name = "/".join(modules)
    template = table.get(re.sub(r"branch\d+", "branch#", name))
    if template is None or head not in _PREFIXES:
        return None
    fields: dict[str, Any] = {}
    if model.head == "deeplabv3" and head == "head":
        fields["pool"] = 1 + len(model.dilations)
    if branch := re.search(r"branch(\d+)", name):
        fields["i0"] = int(branch[1]) - 1
    return f"{_PREFIXES[head]}.{template.format(**fields)}"


def dense_fields(model: nn.Module) -> dict[str, Any]:
    """Return the fields of a network's heads that its tensors' names and shapes do not show."""
    fields = {"head": model.head, "output_stride": model.backbone.output_stride}
    fields["head_norm"] = model.norm if isinstance(model.norm, str) else "own norm"
    if model.head == "deeplabv3":
        fields["atrous_rates"] = ", ".join(map(str, model.dilations))
    return fields


# The values of dense_fields() that torchvision's networks have.
TORCHVISION_FIELDS = {
    "head": tuple(_TABLES),
    "output_stride": (8,),
    "head_norm": ("batch",),
    "atrous_rates": ("12, 24, 36",),
}
