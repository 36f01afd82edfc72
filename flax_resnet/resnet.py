"""ResNet: a stem, stages of blocks, and a head, configured by fields.

Parameter names, from the images to the logits; ``{n}`` counts from 1:

* ``stem_conv``, ``stem_norm``; ``stem_conv{n}``, ``stem_norm{n}`` in a stem of several convolutions
* ``stage{n}_block{n}/conv{n}`` and ``norm{n}``, the norm after the convolution, or before it in a
  pre-activation network (whose last stem convolution has no norm)
* ``stage{n}_block{n}/se/reduce`` and ``se/expand``: squeeze-and-excitation; ``eca/conv``:
  efficient channel attention, with a kernel (size, 1, 1)
* ``stage{n}_block{n}/shortcut/conv`` and ``norm``; no norm in a pre-activation network
* ``final_norm``: before the pooling of a pre-activation network
* ``head``

Convolutions and ``head`` have ``kernel`` (H, W, in, out) or (in, out) and optionally ``bias``,
norms ``scale`` and ``bias``; batch norm keeps ``mean`` and ``var`` in ``batch_stats``.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import layers, norms, ops, own_layers
from flax_resnet.blocks import Block
from flax_resnet.downsampling import ANTIALIAS
from flax_resnet.fields import PARTS, check_fields
from flax_resnet.registry import ACTIVATIONS, BLOCKS
from flax_resnet.stems import STEMS


class FeatureInfo(NamedTuple):
    """Stride, the ratio of image to feature-map resolution, and channels of a feature map."""

    stride: int
    channels: int


class BlockSpec(NamedTuple):
    """A block's stage and index in it, both from 0, its stride and its dilations."""

    stage: int
    index: int
    stride: int
    dilations: tuple[int, int]


class ResNet(nn.Module):
    """A residual network (He et al. 2015, arXiv:1512.03385).

    Fields are validated on construction. Names of own parts are replaced by the parts: a later
    registration of the same name does not change the network.

    Attributes:
      stage_sizes: number of blocks in each stage.
      block: ``"residual"`` (two 3×3), ``"bottleneck"`` (1×1, 3×3, 1×1), or an own block: a class,
        usually a subclass of :class:`flax_resnet.Block`, or its registered name.
      width: channels inside the blocks of the first stage; doubles with every stage.
      width_multiplier: factor on the channels inside a block, not on its output channels: 2 in
        wide_resnet50_2.
      groups: groups of a bottleneck's 3×3 convolution (ResNeXt, arXiv:1611.05431).
      stem: ``"imagenet"``: 7×7 with stride 2 and a 3×3 max-pool with stride 2; ``"cifar"``: 3×3
        with stride 1 and no pool, for small images; ``"no_pool"``: 7×7 with stride 2, for
        images of about 64 pixels; ``"deep"``: three 3×3 convolutions instead of
        the 7×7; ``"tiered"``: as ``"deep"``, with 3/8, 1/2 and all of the stem's channels;
        ``"deep_conv"``: as ``"deep"``, with a 3×3 convolution with stride 2 instead of
        the pool.
      stem_width: channels of the stem; default: ``width``.
      shortcut: see :class:`flax_resnet.shortcuts.Shortcut`.
      stride_conv: convolution of a bottleneck that has the stride: ``"3x3"`` or ``"1x1"`` (the
        first).
      stride_block: block with stride 2: the ``"first"`` of every stage but the first, or the
        ``"last"`` of every stage but the last.
      output_stride: maximum ratio of input to feature-map resolution; further strides are
        replaced by dilation (arXiv:1606.00915, section 3.1), with the same parameters. ``None``:
        no limit.
      preactivation: norm and ReLU before each convolution (He et al. 2016, arXiv:1603.05027):
        none after the stem, and a final norm before the pooling. The first shortcut of each
        stage is applied after norm and ReLU; the others use the raw block input.
      activate_identity: in a pre-activation network, apply the first shortcut of the first stage
        after norm and ReLU also if it is the identity.
      zero_pad_pool: in a pre-activation network, pad the stem's max-pool with zeros, as Keras and
        BiT do, instead of ignoring the pixels outside the map. After a ReLU both are the same.
      se_ratio: hidden width of squeeze-and-excitation as a fraction of the channels
        (arXiv:1709.01507); 0: no squeeze-and-excitation.
      eca: efficient channel attention (arXiv:1910.03151), instead of squeeze-and-excitation.
      antialias: filter that applies the strides inside the blocks, after convolution, norm and
        ReLU, and that of the stem's pool: ``"blur"`` (arXiv:1904.11486), in the stem after a
        max-pool with stride 1, or ``"average"`` of 2×2 pixels, in the stem instead of the
        max-pool. ``None``: no filter.
      reduce_first: divisor of the channels of each block's first convolution: 2 in SENet-154.
      norm: ``"batch"``, ``"group"`` with 32 groups (arXiv:1803.08494), ``"layer"`` over the
        channels (arXiv:1607.06450), or a module class such as ``nn.LayerNorm`` or
        ``partial(nn.GroupNorm, num_groups=8)``. A class gets those of ``name``, ``dtype``,
        ``axis_name`` and ``scale_init`` that it takes; so does a function, which must return a
        module that is called like ``nn.BatchNorm``. ``"folded"`` is for evaluation only, see
        :func:`flax_resnet.fold_batch_norm`.
      norm_epsilon: added to the variance in every norm that is given by its name.
      norm_momentum: weight of the old running statistics of ``"batch"``; 1 - momentum in PyTorch.
      activation: ``"relu"``, ``"gelu"`` (by erf, as in PyTorch), another registered name, or a
        function of an array.
      conv: a class with the fields of ``nn.Conv``, a partial of one, or a function with the
        arguments of :func:`flax_resnet.layers.conv`; ``None``: that function.
      conv_bias: which convolutions have a bias; see :func:`flax_resnet.layers.conv`.
      weight_standardization: see :func:`flax_resnet.layers.standardize`.
      num_classes: outputs of the linear head; 0: no head, the output is the pooled features.
      dropout: dropout rate before the head.
      block_dropout: dropout rate before each block's last convolution (arXiv:1605.07146,
        section 2.4).
      drop_path: stochastic depth rate of the last block (Huang et al. 2016, arXiv:1603.09382,
        section 3); decreases linearly to 0 at the first, as in timm.
      zero_init_last: initialize every block as its shortcut.
      frozen: modules (``stem_norm``, ``stage1_block1``, ``final_norm``, …) that compute in
        training as in evaluation: with running statistics, which are not updated, and without
        dropout. For fine-tuning; the optimizer must keep their parameters.
      dtype: dtype of the computation. Parameters, batch statistics and logits are float32.
      axis_name: mapped axis over which batch statistics are averaged (synchronized batch norm);
        ``None``: each device has its own.
    """

    stage_sizes: Sequence[int]
    block: str | type[nn.Module] = "bottleneck"
    width: int = 64
    width_multiplier: int = 1
    groups: int = 1
    stem: str = "imagenet"
    stem_width: int | None = None
    shortcut: str = "projection"
    stride_conv: str = "3x3"
    stride_block: str = "first"
    output_stride: int | None = None
    preactivation: bool = False
    activate_identity: bool = True
    zero_pad_pool: bool = True
    se_ratio: float = 0.0
    eca: bool = False
    antialias: str | None = None
    reduce_first: int = 1
    norm: str | layers.Layer = "batch"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    activation: str | Callable[[jax.Array], jax.Array] = "relu"
    conv: layers.Layer | None = None
    conv_bias: str = "none"
    weight_standardization: bool = False
    num_classes: int = 1000
    dropout: float = 0.0
    block_dropout: float = 0.0
    drop_path: float = 0.0
    zero_init_last: bool = False
    frozen: Sequence[str] = ()
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        for field, registry in PARTS.items():
            setattr(self, field, own_layers.resolve(registry, getattr(self, field)))
        super().__post_init__()
        check_fields(self)

    def setup(self):
        """Create the layers after the blocks."""
        if self.preactivation:
            self.final_norm = self._norm_layer()(after_conv=False)
        if self.num_classes:
            self.head = layers.linear(self.num_classes)
        self.head_dropout = nn.Dropout(self.dropout)

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return float32 logits ``(N, num_classes)`` for float images ``(N, H, W, C)``.

        With ``num_classes=0`` these are the pooled features ``(N, channels)``. With ``train=True``
        batch norm uses batch statistics and updates the running ones: apply with
        ``mutable=["batch_stats"]``, and with ``rngs={"dropout": key}`` if a dropout or drop path
        rate is not 0.
        """
        return self.forward_head(self.forward_features(images, train), train)

    def forward_features(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return the map before pooling ``(N, H, W, channels)``.

        It is the last stage's; in a pre-activation network after norm and ReLU.
        """
        return self.feature_maps(images, train)[f"stage{len(self.stage_sizes)}"]

    def feature_maps(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Return the maps of :meth:`endpoints`, for heads on them.

        The last one is that of :meth:`forward_features`.
        """
        maps = self.endpoints(images, train)
        if self.preactivation:
            last = f"stage{len(self.stage_sizes)}"
            trainable = train and "final_norm" not in self.frozen
            x = self.final_norm(maps[last], use_running_average=not trainable)
            maps = maps | {last: self.activation_function(x)}  # endpoints may have been captured
        return maps

    def forward_head(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the output for a map ``(N, H, W, channels)`` of :meth:`forward_features`."""
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        x = self.head_dropout(x, deterministic=not train)
        return self.head(x) if self.num_classes else x

    @nn.compact
    def endpoints(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Return the maps after the stem and each stage, as ``{"stem", "stage1", …}``.

        For ``(N, H, W, C)`` images they are ``(N, H / stride, W / stride, channels)``, rounded
        up, with the strides and channels of ``feature_info``; ``stem`` is after the max-pool.
        Detection and segmentation heads use these maps. They have the computation's ``dtype``;
        in a pre-activation network they are the raw sums before the next norm.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be (N, H, W, C), not of shape {images.shape}")
        if train and self.norm == "folded":
            raise ValueError(
                "a network with folded batch norm cannot be trained; train the original network"
            )
        x = self._stem(images.astype(self.dtype), train)
        maps = {"stem": x}
        for spec in self.block_specs():
            block = self._block(spec)
            shape, x = x.shape, block(x, train and block.name not in self.frozen)
            if not isinstance(self.block, str):
                channels = self.width * 2**spec.stage * block.expansion
                own_layers.check_output(block, x, shape, channels)
            maps[f"stage{spec.stage + 1}"] = x
        return maps

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        stem, width = STEMS[self.stem], self._stem_width
        for i, (kernel, stride, fraction) in enumerate(stem.convolutions, 1):
            number = str(i) if len(stem.convolutions) > 1 else ""
            normalized = not self.preactivation or i < len(stem.convolutions)
            layer, features = self._conv_layer(), int(width * fraction)
            x = layer(features, kernel, stride, normalized=normalized, name=f"stem_conv{number}")(x)
            if normalized:
                norm = self._norm_layer()(name=f"stem_norm{number}")
                trainable = train and norm.name not in self.frozen
                x = self.activation_function(norm(x, use_running_average=not trainable))
        return self._stem_pool(x) if stem.pool else x

    def _stem_pool(self, x: jax.Array) -> jax.Array:
        if self.antialias == "average":
            return ANTIALIAS["average"](x, 2)
        padding, stride = 1, 1 if self.antialias else 2
        if self.preactivation and self.zero_pad_pool:
            x, padding = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 0
        x = ops.max_pool(x, padding, stride)
        return ANTIALIAS[self.antialias](x, 2) if self.antialias else x

    def _block(self, spec: BlockSpec) -> nn.Module:
        number = sum(self.stage_sizes[: spec.stage]) + spec.index
        block, name = self._block_class, f"stage{spec.stage + 1}_block{spec.index + 1}"
        widens = spec.stage > 0 or self._stem_width != self.width * block.expansion
        fields = dict(
            width=self.width * 2**spec.stage,
            stride=spec.stride,
            dilations=spec.dilations,
            width_multiplier=self.width_multiplier,
            groups=self.groups,
            stride_conv=self.stride_conv,
            shortcut=self.shortcut,
            preactivation=self.preactivation,
            activate_shortcut=spec.index == 0 and (widens or self.activate_identity),
            se_ratio=self.se_ratio,
            eca=self.eca,
            antialias=self.antialias,
            reduce_first=self.reduce_first,
            dropout=self.block_dropout,
            drop_path=self.drop_path * number / max(1, sum(self.stage_sizes) - 1),
            zero_init_last=self.zero_init_last,
            conv=self._conv_layer(block),
            norm=self._norm_layer(block),
            activation=self.activation_function,
        )
        if not issubclass(block, Block):
            fields = {
                field: fields[field] for field in own_layers.block_fields(block) & fields.keys()
            }
        return block(**fields, name=name)

    @property
    def _stem_width(self) -> int:
        return self.width if self.stem_width is None else self.stem_width

    @property
    def _block_class(self) -> type[nn.Module]:
        return BLOCKS[self.block] if isinstance(self.block, str) else self.block

    @property
    def activation_function(self) -> Callable[[jax.Array], jax.Array]:
        """The function that ``activation`` names."""
        if isinstance(self.activation, str):
            return ACTIVATIONS[self.activation]
        return partial(own_layers.activate, self.activation)

    @nn.nowrap
    def _conv_layer(self, block: type[nn.Module] | None = None) -> layers.Layer:
        if self.norm == "folded" and own_layers.folds_norms(self, block):
            return partial(layers.conv, bias="all", dtype=self.dtype)
        factory = layers.standardized_conv if self.weight_standardization else layers.conv
        if self.conv is not None:
            factory = own_layers.conv_factory(self.conv)
        return partial(factory, bias=self.conv_bias, dtype=self.dtype)

    @nn.nowrap
    def _norm_layer(self, block: type[nn.Module] | None = None) -> layers.Layer:
        if self.norm == "folded":
            folds = own_layers.folds_norms(self, block)
            factory = norms.folded_norm if folds else norms.unfolded_norm
            return partial(factory, dtype=self.dtype)
        return own_layers.norm_factory(
            self.norm,
            dtype=self.dtype,
            epsilon=self.norm_epsilon,
            momentum=self.norm_momentum,
            axis_name=self.axis_name,
        )

    @nn.nowrap
    def block_specs(self) -> Iterator[BlockSpec]:
        """Yield the specifications of all blocks in order."""
        total, dilation = STEMS[self.stem].stride, 1
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                if self.stride_block == "first":
                    halves = stage > 0 and index == 0
                else:
                    halves = stage < len(self.stage_sizes) - 1 and index == blocks - 1
                if halves and total == self.output_stride:
                    yield BlockSpec(stage, index, 1, (dilation, 2 * dilation))
                    dilation *= 2
                else:
                    stride = 2 if halves else 1
                    yield BlockSpec(stage, index, stride, (dilation, dilation))
                    total *= stride

    @property
    def feature_info(self) -> dict[str, FeatureInfo]:
        """Stride and channels of each map of :meth:`endpoints`."""
        total = STEMS[self.stem].stride
        info = {"stem": FeatureInfo(total, self._stem_width)}
        for spec in self.block_specs():
            total *= spec.stride
            channels = self.width * 2**spec.stage * self._block_class.expansion
            info[f"stage{spec.stage + 1}"] = FeatureInfo(total, channels)
        return info
