"""Semantic segmentation: a ResNet with a head that returns logits of every pixel.

Top-level names of its variables: ``backbone``, with those of :mod:`flax_resnet.resnet`, ``head``
and ``aux_head``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import layers, norms, own_layers
from flax_resnet.dense.deeplab import ATROUS_PIXELS, DeepLabV3Head
from flax_resnet.dense.fcn import FCNHead
from flax_resnet.dense.head_layers import HeadLayers
from flax_resnet.dense.on_backbone import HEADS
from flax_resnet.dense.resizing import resize_bilinear
from flax_resnet.dense.semantic_fpn import SemanticFPNHead
from flax_resnet.registry import NORMS
from flax_resnet.resnet import FeatureInfo, ResNet

MODULES = ("backbone", *HEADS)


class HeadKind(NamedTuple):
    """A kind of head.

    Attributes:
      make: returns the module for a model, its channels, its layers and further fields.
      channels: of its convolutions; ``None``: a quarter of the last map's.
      norm: of its convolutions; ``None``: that of the backbone.
      fields: fields of :class:`SegmentationModel` that only this kind has.
      reads_all_maps: whether it is called with the maps of all stages, not only of the last.
    """

    make: Callable[..., nn.Module]
    channels: int | None = None
    norm: str | None = None
    fields: tuple[str, ...] = ()
    reads_all_maps: bool = False


def _make_fcn(model: "SegmentationModel", **fields: Any) -> nn.Module:
    return FCNHead(model.num_classes, **fields)


def _make_deeplab(model: "SegmentationModel", **fields: Any) -> nn.Module:
    return DeepLabV3Head(model.num_classes, rates=model.dilations, **fields)


def _make_semantic_fpn(model: "SegmentationModel", **fields: Any) -> nn.Module:
    channels = model.pyramid_channels or 256
    return SemanticFPNHead(
        model.num_classes, pyramid_channels=channels, dtype=model.dtype, **fields
    )


HEAD_KINDS = {
    "fcn": HeadKind(_make_fcn),
    "deeplabv3": HeadKind(_make_deeplab, channels=256, fields=("atrous_rates",)),
    "semantic_fpn": HeadKind(
        _make_semantic_fpn,
        channels=128,
        norm="group",
        fields=("pyramid_channels",),
        reads_all_maps=True,
    ),
}


class SegmentationModel(nn.Module):
    """A ResNet with a head for semantic segmentation.

    Fields are validated on construction. ``dtype``, ``axis_name`` and ``frozen`` are those of the
    backbone, too.

    Attributes:
      backbone: the network whose feature maps the head uses; its own head is left out.
      head: ``"fcn"`` (torchvision's FCN head), ``"deeplabv3"`` (arXiv:1706.05587), or
        ``"semantic_fpn"``: a feature pyramid (arXiv:1612.03144) with the semantic head of
        arXiv:1901.02446.
      num_classes: logits of every pixel.
      aux_head: second FCN head on the map before the last stage, as in PSPNet
        (arXiv:1612.01105, section 3.3), for an auxiliary loss. It is computed in training only.
      head_channels: channels of the head's convolutions; default: a quarter of the last map's for
        ``"fcn"``, 256 for ``"deeplabv3"``, 128 for ``"semantic_fpn"``.
      head_norm: norm of the heads; default: that of the backbone, and ``"group"`` for
        ``"semantic_fpn"``, as in its paper.
      atrous_rates: dilations in the head ``"deeplabv3"``; default: those of the paper, which are
        12, 24 and 36 at output stride 8 and 6, 12 and 18 at output stride 16.
      pyramid_channels: channels of the feature pyramid's levels; default: 256.
      dropout: dropout rate in the heads; default: 0.1 for ``"fcn"``, 0.5 for ``"deeplabv3"``, as
        in torchvision, and 0 for ``"semantic_fpn"``.
      freeze_batch_norm: compute the backbone in training as in evaluation, with running
        statistics, which are not updated, and without drop path. Its parameters are trained. For
        batches of few images.
      frozen: modules that compute in training as in evaluation, see :class:`ResNet`:
        ``"backbone"``, ``"head"``, ``"aux_head"``, or one of the backbone such as
        ``"backbone/stage1_block1"``. The optimizer must keep their parameters.
      dtype: dtype of the computation. Parameters, batch statistics and logits are float32.
      axis_name: mapped axis over which batch statistics are averaged (synchronized batch norm);
        ``None``: each device has its own.
    """

    backbone: ResNet
    head: str = "fcn"
    num_classes: int = 21
    aux_head: bool = False
    head_channels: int | None = None
    head_norm: str | layers.Layer | None = None
    atrous_rates: Sequence[int] | None = None
    pyramid_channels: int | None = None
    dropout: float | None = None
    freeze_batch_norm: bool = False
    frozen: Sequence[str] = ()
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if isinstance(self.backbone, ResNet):
            inside = [name.partition("/") for name in self.frozen]
            shared = dict(
                num_classes=0,
                dtype=self.dtype,
                axis_name=self.axis_name,
                frozen=tuple(rest for first, _, rest in inside if first == "backbone" and rest),
            )
            if any(getattr(self.backbone, field) != value for field, value in shared.items()):
                self.backbone = self.backbone.clone(**shared)
        if self.head_norm is not None:
            self.head_norm = own_layers.resolve(NORMS, self.head_norm)
        super().__post_init__()
        check_fields(self)

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Return float32 logits ``(N, H, W, num_classes)`` for float images ``(N, H, W, C)``.

        They are resized bilinearly from the head's resolution to that of the images. With
        ``train=True`` batch norm uses batch statistics and updates the running ones (apply with
        ``mutable=["batch_stats"]``), dropout needs ``rngs={"dropout": key}``, and with
        ``aux_head=True`` the result is ``(logits, logits of the auxiliary head)``.
        """
        size = images.shape[1:3]
        trains = {name: train and name not in self.frozen for name in MODULES}
        trains["backbone"] &= not self.freeze_batch_norm
        maps = self.backbone.feature_maps(images, trains["backbone"])
        *_, before_last, last = maps
        features = maps if HEAD_KINDS[self.head].reads_all_maps else maps[last]
        logits = resize_bilinear(self._make_head()(features, trains["head"]), size)
        if not self.aux_head or not (train or self.is_initializing()):
            return logits
        aux = self._make_aux_head(maps[before_last].shape[-1])(
            maps[before_last], trains["aux_head"]
        )
        return (logits, resize_bilinear(aux, size)) if train else logits

    def endpoints(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Return the maps of the backbone's stages; see :meth:`ResNet.endpoints`."""
        return self.backbone.endpoints(images, train)

    @property
    def feature_info(self) -> dict[str, FeatureInfo]:
        """Stride and channels of each map of :meth:`endpoints`."""
        return self.backbone.feature_info

    @property
    def frozen_statistics(self) -> tuple[str, ...]:
        """Top-level modules whose batch statistics are not updated, beside ``frozen``."""
        return ("backbone",) if self.freeze_batch_norm else ()

    @property
    def dilations(self) -> tuple[int, ...]:
        """Dilations of the head ``"deeplabv3"``."""
        if self.atrous_rates is not None:
            return tuple(self.atrous_rates)
        stride = list(self.feature_info.values())[-1].stride
        return tuple(max(1, pixels // stride) for pixels in ATROUS_PIXELS)

    @property
    def norm(self) -> str | layers.Layer:
        """The norm of the heads."""
        return self.head_norm or HEAD_KINDS[self.head].norm or self.backbone.norm

    @nn.nowrap
    def _make_head(self) -> nn.Module:
        kind = HEAD_KINDS[self.head]
        quarter = max(1, list(self.feature_info.values())[-1].channels // 4)
        channels = self.head_channels or kind.channels or quarter
        return kind.make(
            self, channels=channels, layers=self._layers(), name="head", **self._dropout()
        )

    @nn.nowrap
    def _make_aux_head(self, channels: int) -> nn.Module:
        return FCNHead(
            self.num_classes,
            max(1, channels // 4),
            self._layers(),
            name="aux_head",
            **self._dropout(),
        )

    @nn.nowrap
    def _dropout(self) -> dict[str, float]:
        return {} if self.dropout is None else {"dropout": self.dropout}

    @nn.nowrap
    def _layers(self) -> HeadLayers:
        conv = partial(layers.conv, dtype=self.dtype)
        activation = self.backbone.activation_function
        if self.norm == "folded":
            return HeadLayers(partial(conv, bias="all"), norms.folded_norm, activation)
        norm = own_layers.norm_factory(
            self.norm,
            dtype=self.dtype,
            epsilon=self.backbone.norm_epsilon,
            momentum=self.backbone.norm_momentum,
            axis_name=self.axis_name,
        )
        return HeadLayers(conv, norm, activation)


def check_fields(model: SegmentationModel) -> None:
    """Raise ValueError, which lists the valid values, if a field of a model is invalid."""
    if not isinstance(model.backbone, ResNet):
        raise ValueError(f"backbone must be a ResNet or the name of one, not {model.backbone!r}")
    if model.head not in HEAD_KINDS:
        raise ValueError(f"unknown head {model.head!r}; valid are {', '.join(HEAD_KINDS)}")
    for kind, row in HEAD_KINDS.items():
        for field in row.fields if kind != model.head else ():
            if getattr(model, field) is not None:
                raise ValueError(f"{field} belongs to head={kind!r}, not to {model.head!r}")
    numbers = {field: getattr(model, field) for field in ("head_channels", "pyramid_channels")}
    numbers = {field: value for field, value in numbers.items() if value is not None}
    for field, value in ({"num_classes": model.num_classes} | numbers).items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{field} must be an integer of at least 1, not {value!r}")
    rates = model.atrous_rates
    if rates is not None and not all(isinstance(rate, int) and rate > 0 for rate in rates):
        raise ValueError(f"atrous_rates must be positive integers, not {rates!r}")
    if model.dropout is not None and not 0 <= model.dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), not {model.dropout!r}")
    if unknown := [name for name in model.frozen if name.partition("/")[0] not in MODULES]:
        raise ValueError(f"unknown module {unknown[0]!r} in frozen; valid are {', '.join(MODULES)}")
    if len(model.backbone.stage_sizes) < 2:
        raise ValueError("a backbone for segmentation must have at least 2 stages")
    if isinstance(model.norm, str) and model.norm not in (*NORMS, "folded"):
        raise ValueError(f"unknown head_norm {model.norm!r}; valid are {', '.join(NORMS)}")
    _check_groups(model)


def _check_groups(model: SegmentationModel) -> None:
    if model.norm != "group":
        return
    info = list(model.feature_info.values())
    widths = [model.head_channels or HEAD_KINDS[model.head].channels or info[-1].channels // 4]
    widths += [info[-2].channels // 4] if model.aux_head else []
    if indivisible := [width for width in widths if width % 32]:
        raise ValueError(
            f"head_norm='group' has 32 groups, which must divide the {indivisible[0]} channels of"
            " the heads; use another head_channels, or head_norm='batch'"
        )
