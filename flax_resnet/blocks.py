"""Residual blocks as Flax Linen modules.

A block computes ``relu(F(x) + shortcut(x))`` (He et al. 2015, arXiv:1512.03385, section 3), or
``F(x) + shortcut(x)`` with norm and ReLU before each convolution of F (He et al. 2016,
arXiv:1603.05027, figure 1b). Maps are NHWC. Every convolution is padded explicitly and
symmetrically: ``"SAME"`` pads a strided convolution on one side only, which would shift the maps
relative to the published networks.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn

from flax_resnet import ops
from flax_resnet.attention import EfficientChannelAttention, SqueezeExcite
from flax_resnet.downsampling import ANTIALIAS
from flax_resnet.layers import Layer, PartError, conv
from flax_resnet.norms import batch_norm
from flax_resnet.registry import BLOCKS
from flax_resnet.shortcuts import Shortcut

register_block = BLOCKS.register

STRIDE_CONVS = ("3x3", "1x1")


class Block(nn.Module):
    """Base class of the blocks; a subclass defines ``expansion`` and the convolutions of F.

    A block with another structure overrides ``__call__`` with a function of ``x`` and ``train``,
    usually ``@nn.compact``, that makes its layers by ``self.conv`` and ``self.norm``, so that
    they follow the fields of the network, and ends with :meth:`add_shortcut`. See
    :func:`flax_resnet.layers.conv` for the arguments of ``self.conv`` (with ``groups=features``
    it is depthwise). ``self.norm(name=…)`` is called with the map and
    ``use_running_average=not train``.

    Maps ``(N, H, W, C)`` to ``(N, ceil(H / stride), ceil(W / stride), expansion * width)``.
    With ``train=True`` the running statistics in ``batch_stats`` are updated if the collection is
    mutable, and apply needs ``rngs={"dropout": key}`` if ``dropout`` or ``drop_path`` is not 0.

    Attributes:
      width: channels inside the block, before ``width_multiplier``.
      stride: stride of the block.
      dilations: dilation of a 3×3 before and after the block's stride; they differ if dilation
        replaces the stride (arXiv:1606.00915, section 3.1).
      groups: groups of a bottleneck's 3×3 (ResNeXt's cardinality, arXiv:1611.05431, section 3).
      width_multiplier: factor on the channels inside the block, not on its output channels.
      stride_conv: convolution of a bottleneck that has the stride: ``"3x3"`` or ``"1x1"`` (the
        first).
      shortcut: see :class:`flax_resnet.shortcuts.Shortcut`.
      preactivation: norm and ReLU before each convolution instead of after it.
      activate_shortcut: with ``preactivation``, apply the shortcut after norm and ReLU instead of
        to the raw block input.
      se_ratio: hidden width of squeeze-and-excitation as a fraction of the channels; 0: none.
      eca: efficient channel attention, instead of squeeze-and-excitation.
      antialias: filter with which a stride is applied to the activated map after the convolution,
        instead of in it: ``"blur"``, ``"average"`` or ``None``.
      reduce_first: divisor of the channels of the first convolution.
      dropout: rate before the last convolution (arXiv:1605.07146, section 2.4).
      drop_path: rate at which F is dropped per example (arXiv:1603.09382).
      zero_init_last: initialize F to zero, so that the block is its shortcut: by the last norm's
        scale (arXiv:1706.02677, section 5.1), with ``preactivation`` by the last kernel.
      conv: factory of the convolutions.
      norm: factory of the norms.
      activation: function after the norms; squeeze-and-excitation always has ReLU and sigmoid.
    """

    expansion: ClassVar[int] = 1  # output channels / width

    width: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    width_multiplier: int = 1
    stride_conv: str = "3x3"
    shortcut: str = "projection"
    preactivation: bool = False
    activate_shortcut: bool = False
    se_ratio: float = 0.0
    eca: bool = False
    antialias: str | None = None
    reduce_first: int = 1
    dropout: float = 0.0
    drop_path: float = 0.0
    zero_init_last: bool = False
    conv: Layer = conv
    norm: Layer = batch_norm
    activation: Callable[[jax.Array], jax.Array] = ops.relu

    def convolutions(self) -> list[dict[str, Any]]:
        """Return the arguments of the convolutions of F, in order.

        Only that with the block's stride has the argument ``stride``, which may be 1.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither convolutions() nor __call__")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the block's output for ``x``."""
        if self.preactivation:
            return self._norm_relu_conv(x, train)
        return self._conv_norm_relu(x, train)

    def _conv_norm_relu(self, x: jax.Array, train: bool) -> jax.Array:
        layers, y = self.convolutions(), x
        for i, layer in enumerate(layers, 1):
            last = i == len(layers)
            scale = nn.initializers.zeros if last and self.zero_init_last else nn.initializers.ones
            y = self._drop(y, train) if last else y
            y = self.conv(**self._unfiltered(layer), name=f"conv{i}")(y)
            y = self.norm(scale_init=scale, name=f"norm{i}")(y, use_running_average=not train)
            y = self._filter(y if last else self.activation(y), layer)
        y = self.add_shortcut(y, x, train)
        return ops.relu_of_sum(y) if self.activation is ops.relu else self.activation(y)

    def _norm_relu_conv(self, x: jax.Array, train: bool) -> jax.Array:
        layers, y = self.convolutions(), x
        for i, layer in enumerate(layers, 1):
            last = i == len(layers)
            kernel = nn.initializers.zeros if last and self.zero_init_last else None
            norm = self.norm(after_conv=i > 1, name=f"norm{i}")
            y = self.activation(norm(y, use_running_average=not train))
            y = self._filter(y, layers[i - 2]) if i > 1 else y
            if i == 1:
                shortcut = self._shortcut(y if self.activate_shortcut else x, train, norm=None)
            y = self._drop(y, train) if last else y
            arguments = self._unfiltered(layer) | dict(normalized=not last, kernel_init=kernel)
            y = self.conv(**arguments, name=f"conv{i}")(y)
        return self._add(self._filter(y, layers[-1]), shortcut, train)

    def _unfiltered(self, layer: dict[str, Any]) -> dict[str, Any]:
        """Return a convolution's arguments without the stride that its filter applies."""
        return layer | dict(stride=1) if self.antialias and "stride" in layer else layer

    def _filter(self, y: jax.Array, layer: dict[str, Any]) -> jax.Array:
        """Apply the stride of a convolution, or the dilation that replaces it, by the filter."""
        before, after = self.dilations
        stride = layer.get("stride", 1)
        if self.antialias and "stride" in layer and stride * after > before:
            return ANTIALIAS[self.antialias](y, stride, before)
        return y

    def add_shortcut(self, y: jax.Array, x: jax.Array, train: bool = False) -> jax.Array:
        """Return ``y`` plus the shortcut of ``x``, to which no activation is applied yet.

        ``y`` passes channel attention and drop path first, if the block has them.
        """
        return self._add(y, self._shortcut(x, train, self.norm), train)

    def _shortcut(self, x: jax.Array, train: bool, norm: Layer | None) -> jax.Array | None:
        fields = dict(stride=self.stride, dilations=self.dilations, conv=self.conv, norm=norm)
        features = self.width * self.expansion
        return Shortcut(self.shortcut, features, **fields, name="shortcut")(x, train)

    def _drop(self, y: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(self.dropout, deterministic=not train)(y)

    def _add(self, y: jax.Array, shortcut: jax.Array | None, train: bool) -> jax.Array:
        if shortcut is not None:
            check_sum(self, y, shortcut)
        if self.se_ratio:
            y = SqueezeExcite(self.se_ratio, y.dtype, name="se")(y)
        if self.eca:
            y = EfficientChannelAttention(y.dtype, name="eca")(y)
        if shortcut is None:
            return y
        per_example = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)
        return shortcut + per_example(y)


def describe_block(block: nn.Module) -> str:
    """Return class, name and fields of a block for messages."""
    return (
        f"block {type(block).__name__} ({block.name}) with stride={block.stride},"
        f" width={block.width} and expansion={block.expansion}"
    )


def check_sum(block: nn.Module, y: jax.Array, shortcut: jax.Array) -> None:
    """Raise ValueError unless ``y`` can be added to the shortcut."""
    shape = getattr(y, "shape", None)
    if shape == shortcut.shape:
        return
    try:  # such as a value per channel
        fits = shape is not None and np.broadcast_shapes(shape, shortcut.shape) == shortcut.shape
    except ValueError:
        fits = False
    if not fits:
        raise PartError(
            f"{describe_block(block)} adds {f'a map of shape {shape}' if shape else repr(y)[:80]}"
            f" to its shortcut of {shortcut.shape}; the map must have that shape"
        )


@register_block("residual")
class ResidualBlock(Block):
    """Two 3×3 convolutions (arXiv:1512.03385, figure 5 left), with the stride in the first.

    Shapes and fields are those of :class:`Block`, with ``expansion`` 1.
    """

    expansion = 1

    def convolutions(self) -> list[dict[str, Any]]:
        """Return the arguments of the two convolutions."""
        before, after = self.dilations
        inner = self.width * self.width_multiplier
        return [
            dict(
                features=inner // self.reduce_first,
                kernel=3,
                stride=self.stride,
                dilation=before,
            ),
            dict(features=self.width, kernel=3, dilation=after),
        ]


@register_block("bottleneck")
class BottleneckBlock(Block):
    """1×1, 3×3, 1×1 convolutions, the last four times wider (arXiv:1512.03385, figure 5 right).

    Shapes and fields are those of :class:`Block`, with ``expansion`` 4. The stride is in the 3×3,
    as in torchvision, or in the first 1×1, as in the paper.
    """

    expansion = 4

    def convolutions(self) -> list[dict[str, Any]]:
        """Return the arguments of the three convolutions."""
        inner, (before, after) = self.width * self.width_multiplier, self.dilations
        if self.stride_conv == "1x1":
            first, middle = dict(stride=self.stride), dict(dilation=after)
        else:
            first, middle = dict(), dict(stride=self.stride, dilation=before)
        return [
            dict(features=inner // self.reduce_first, kernel=1, **first),
            dict(features=inner, kernel=3, groups=self.groups, **middle),
            dict(features=self.width * self.expansion, kernel=1),
        ]
