"""Shortcuts: the paths around the convolutions of the blocks."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.downsampling import average_pool
from flax_resnet.layers import Layer, conv
from flax_resnet.norms import batch_norm

SHORTCUTS = (
    "projection",
    "projection_3x3",
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
        * ``"projection_3x3"``: as ``"projection"``, with a 3×3 convolution if the resolution
          changes (SENet-154, arXiv:1709.01507, appendix);
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
            "projection_3x3": widens or strides,
            "projection_all": True,
            "projection_channels": widens,
            "average_pool": widens or strides,
            "zero_pad": False,
        }[self.kind]
        if not projects:
            return self._subsample_and_pad(x)
        kernel, stride, fields = 1, self.stride, dict(normalized=self.norm is not None)
        if self.kind == "average_pool" and strides:
            x, stride = average_pool(x, stride, before), 1
        if self.kind == "projection_3x3" and strides:
            kernel, fields = 3, fields | dict(dilation=before)
        x = self.conv(self.features, kernel, stride, **fields, name="conv")(x)
        return x if self.norm is None else self.norm(name="norm")(x, use_running_average=not train)

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
