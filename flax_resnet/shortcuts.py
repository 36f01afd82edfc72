"""Shortcuts: the paths around the convolutions of the blocks."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.layers import Layer, conv
from flax_resnet.norms import batch_norm

SHORTCUTS = (
    "projection",
    "projection_all",
    "projection_channels",
    "average_pool",
    "zero_pad",
    "none",
)


class Shortcut(nn.Module):
    """The path around a block's convolutions (arXiv:1512.03385, section 3.3).

    Maps ``(N, H, W, C)`` to ``(N, ceil(H / stride), ceil(W / stride), features)``.

    Attributes:
      kind: one of

        * ``"projection"``: option B, a 1×1 convolution with norm if the shape changes, otherwise
          the identity;
        * ``"projection_all"``: option C, a 1×1 convolution with norm in every block;
        * ``"projection_channels"``: a 1×1 convolution with norm if the number of channels
          changes; if only the resolution changes, every ``stride``-th pixel, as in Keras's V2;
        * ``"average_pool"``: as ``"projection"``, with the stride in a 2×2 average pool before
          the convolution (ResNet-D, arXiv:1812.01187, section 4.1);
        * ``"zero_pad"``: option A, without parameters: every ``stride``-th pixel, and zeros for
          the new channels;
        * ``"none"``: no shortcut (a plain network); returns ``None``.
      features: output channels.
      stride: stride of the block.
      dilations: before and after the block; they differ if dilation replaces the block's stride.
        The shortcut then has the same parameters and computes the maps at the full resolution.
      conv: factory of the convolution.
      norm: factory of the norm after the convolution; ``None``: no norm, for pre-activation.
    """

    kind: str
    features: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    conv: Layer = conv
    norm: Layer | None = batch_norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | None:
        """Return the shortcut of the block input ``x``."""
        if self.kind not in SHORTCUTS:
            raise ValueError(f"unknown shortcut {self.kind!r}; valid are {', '.join(SHORTCUTS)}")
        if self.kind == "none":
            return None
        before, after = self.dilations
        widens, strides = x.shape[-1] != self.features, self.stride * after // before > 1
        projects = {
            "projection": widens or strides,
            "projection_all": True,
            "projection_channels": widens,
            "average_pool": widens or strides,
            "zero_pad": False,
        }[self.kind]
        if not projects:
            return self._subsample_and_pad(x)
        stride = self.stride
        if self.kind == "average_pool" and strides:
            x, stride = average_pool(x, stride, before), 1
        normalized = self.norm is not None
        x = self.conv(self.features, 1, stride, normalized=normalized, name="conv")(x)
        return self.norm(name="norm")(x, use_running_average=not train) if normalized else x

    def _subsample_and_pad(self, x: jax.Array) -> jax.Array:
        """Take every ``stride``-th pixel and add channels of zeros."""
        new = self.features - x.shape[-1]
        if new < 0:
            raise ValueError(
                f"a zero_pad shortcut cannot reduce {x.shape[-1]} channels to {self.features};"
                " use shortcut='projection'"
            )
        x = x[:, :: self.stride, :: self.stride, :]
        # Half on either side, as in common CIFAR implementations; their position does not change
        # which functions the block can represent.
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


def average_pool(x: jax.Array, stride: int, dilation: int = 1) -> jax.Array:
    """Return 2×2 means of pixels ``dilation`` apart, at the edges only of existing pixels."""

    def total(x: jax.Array) -> jax.Array:
        length = dilation + 1
        pads = [(0, max(0, -(-n // stride) * stride - stride + length - n)) for n in x.shape[1:3]]
        return jax.lax.reduce_window(
            x,
            0.0,
            jax.lax.add,
            window_dimensions=(1, 2, 2, 1),
            window_strides=(1, stride, stride, 1),
            padding=((0, 0), *pads, (0, 0)),
            window_dilation=(1, dilation, dilation, 1),
        )

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
