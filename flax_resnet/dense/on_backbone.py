"""Named networks that put a head on a ResNet."""

import dataclasses
import inspect
from typing import Any

from flax import linen as nn

from flax_resnet.registry import MODELS
from flax_resnet.resnet import ResNet

# Top-level modules of all networks that depend on the classes; the others are the backbone.
HEADS = ("head", "aux_head")


class OnBackbone:
    """Function of the registry that returns a network with a head on a backbone.

    Its arguments are the fields of the network's class and those of :class:`ResNet`; a name that
    both have, such as ``dtype``, is the class's. So every ``create_model`` and configuration that
    sets a field of a ResNet also sets it in the backbone.

    Args:
      cls: class of the network, with a field ``backbone``.
      backbone: name of the default backbone.
      **fields: default fields of the network and the backbone.
    """

    def __init__(self, cls: type[nn.Module], backbone: str, **fields: Any):
        self.cls, self.backbone, self.fields = cls, backbone, fields
        names = dict.fromkeys((*_fields(cls), *_fields(ResNet)))
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        )

    def __call__(self, backbone: str | ResNet | None = None, **fields: Any) -> nn.Module:
        """Return the network.

        Args:
          backbone: name of a ResNet, or a network; default: that of the row.
          **fields: of the network and the backbone.

        Raises:
          ValueError: a field is invalid, or there is no such ResNet.
        """
        fields = self.fields | fields
        own = {name: fields.pop(name) for name in _fields(self.cls) if name in fields}
        return self.cls(backbone=make_backbone(backbone or self.backbone, fields), **own)


def make_backbone(backbone: str | ResNet, fields: dict[str, Any]) -> ResNet:
    """Return a backbone without a head.

    Args:
      backbone: its name, or a network.
      fields: that override those of the backbone.

    Raises:
      ValueError: there is no such ResNet, or a field is invalid.
    """
    fields = fields | {"num_classes": 0}
    if isinstance(backbone, ResNet):
        return backbone.clone(**fields)
    if backbone not in MODELS:
        raise ValueError(f"backbone: {MODELS.unknown(backbone)}")
    if isinstance(MODELS[backbone], OnBackbone):
        raise ValueError(f"backbone must be a ResNet, and {backbone!r} has a head for pixels")
    try:
        network = MODELS[backbone](**fields)
    except TypeError as error:  # of an own model, which may lack a field
        raise ValueError(f"the backbone {backbone!r} cannot be made: {error}") from error
    if not isinstance(network, ResNet):
        raise ValueError(f"backbone must be a ResNet, and {backbone!r} is none")
    return network


def find_backbone(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the ResNet inside a network with a head on one, and its path in the variables.

    That of any other network is the network itself.
    """
    backbone = getattr(model, "backbone", None)
    return (backbone, ("backbone",)) if isinstance(backbone, ResNet) else (model, ())


def _fields(cls: type[nn.Module]) -> list[str]:
    return [each.name for each in dataclasses.fields(cls) if each.name not in ("parent", "name")]
