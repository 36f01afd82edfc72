"""Residual blocks and their shortcuts as Flax linen modules.

A block computes ``relu(F(x) + shortcut(x))`` (He et al. 2015, arXiv:1512.03385,
section 3). Maps are NHWC. Every convolution pads explicitly and symmetrically:
``"SAME"`` would pad a strided convolution on one side only, which shifts the maps
against the published networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

SHORTCUTS = ("projection", "projection_all", "zero_pad", "none")

# A factory of layers: called with the layer's arguments it returns a linen module.
Layer = Callable[..., nn.Module]

# He et al. 2015 (arXiv:1502.01852): variance 2 / fan_out keeps gradients' scale.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(features: int, kernel: int, stride: int = 1, **kwargs) -> nn.Conv:
    """A square convolution without bias, padded by ``kernel // 2`` on every side."""
    pad = kernel // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        kernel_init=he_normal,
        **kwargs,
    )


# Flax's momentum is PyTorch's 1 - momentum: 0.9 here is torchvision's 0.1.
batch_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


class Shortcut(nn.Module):
    """The path around a block's convolutions (arXiv:1512.03385, section 3.3).

    kind:
      * ``"projection"``: option B, a 1×1 convolution with norm where the shape changes,
        the identity elsewhere;
      * ``"projection_all"``: option C, a 1×1 convolution with norm in every block;
      * ``"zero_pad"``: option A, without parameters: every ``stride``-th pixel,
        and zeros for the channels that are new;
      * ``"none"``: no shortcut, a plain net; gives ``None``.
    """

    kind: str
    features: int
    stride: int = 1
    conv: Layer = conv
    norm: Layer = batch_norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | None:
        if self.kind not in SHORTCUTS:
            raise ValueError(f"unknown shortcut {self.kind!r}; valid are {', '.join(SHORTCUTS)}")
        if self.kind == "none":
            return None
        same_shape = self.stride == 1 and x.shape[-1] == self.features
        if same_shape and self.kind != "projection_all":
            return x
        if self.kind == "zero_pad":
            return self._zero_pad(x)
        x = self.conv(self.features, 1, self.stride, name="conv")(x)
        return self.norm(use_running_average=not train, name="norm")(x)

    def _zero_pad(self, x: jax.Array) -> jax.Array:
        new = self.features - x.shape[-1]
        if new < 0:
            raise ValueError(
                f"a zero_pad shortcut cannot narrow {x.shape[-1]} channels to {self.features};"
                " use shortcut='projection'"
            )
        x = x[:, :: self.stride, :: self.stride, :]
        # Half on either side, as the CIFAR nets are commonly built; where the zeros
        # stand makes no difference to what the block can express.
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions (arXiv:1512.03385, figure 5 left), stride in the first.

    Takes ``(N, H, W, C)`` to ``(N, ceil(H / stride), ceil(W / stride), width)``.
    ``zero_init_last`` starts the last norm's scale at zero, so that the block begins as
    its shortcut (arXiv:1706.02677, section 5.1). Running statistics are in the
    ``batch_stats`` collection, which is updated where ``train`` is true and it is mutable.
    """

    width: int
    stride: int = 1
    shortcut: str = "projection"
    zero_init_last: bool = False
    conv: Layer = conv
    norm: Layer = batch_norm

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = partial(self.norm, use_running_average=not train)
        around = Shortcut(
            self.shortcut, self.width, self.stride, self.conv, self.norm, name="shortcut"
        )(x, train)
        x = self.conv(self.width, 3, self.stride, name="conv1")(x)
        x = nn.relu(norm(name="norm1")(x))
        x = self.conv(self.width, 3, name="conv2")(x)
        x = norm(name="norm2", scale_init=last_scale(self.zero_init_last))(x)
        return nn.relu(x if around is None else x + around)


class BottleneckBlock(nn.Module):
    """1×1, 3×3, 1×1 convolutions, the last four times wider (figure 5 right).

    Takes ``(N, H, W, C)`` to ``(N, ceil(H / stride), ceil(W / stride), 4 * width)``. The
    stride is in the 3×3, as in torchvision; other fields as in :class:`ResidualBlock`.
    """

    width: int
    stride: int = 1
    shortcut: str = "projection"
    zero_init_last: bool = False
    conv: Layer = conv
    norm: Layer = batch_norm

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        norm = partial(self.norm, use_running_average=not train)
        features = self.width * self.expansion
        around = Shortcut(
            self.shortcut, features, self.stride, self.conv, self.norm, name="shortcut"
        )(x, train)
        x = self.conv(self.width, 1, name="conv1")(x)
        x = nn.relu(norm(name="norm1")(x))
        x = self.conv(self.width, 3, self.stride, name="conv2")(x)
        x = nn.relu(norm(name="norm2")(x))
        x = self.conv(features, 1, name="conv3")(x)
        x = norm(name="norm3", scale_init=last_scale(self.zero_init_last))(x)
        return nn.relu(x if around is None else x + around)


def last_scale(zero: bool) -> Callable:
    """The initialiser of a block's last norm scale."""
    return nn.initializers.zeros if zero else nn.initializers.ones


BLOCKS = {"residual": ResidualBlock, "bottleneck": BottleneckBlock}
