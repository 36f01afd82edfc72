"""Head of DeepLabv3 (Chen et al. 2017, arXiv:1706.05587)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.dense.head_layers import ConvNorm, HeadLayers, classify

# Dilations of the 3×3 convolutions in pixels of the image: 6, 12 and 18 at output stride 16, twice
# as many at output stride 8 (section 4.1).
ATROUS_PIXELS = (96, 192, 288)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (section 3.3): parallel convolutions of several dilations.

    Modules: ``branch1``, a 1×1 convolution; ``branch{n}``, the 3×3 convolutions in the order of
    their rates; ``pool``, a 1×1 convolution of the mean over the image; and ``project``, which
    combines them.

    Attributes:
      channels: of each branch and of the output.
      rates: dilations of the 3×3 convolutions.
      layers: factories of the layers.
      dropout: dropout rate of the output.
    """

    channels: int
    rates: Sequence[int]
    layers: HeadLayers
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return ``(N, H, W, channels)`` for ``(N, H, W, C)``."""
        branches = [ConvNorm(self.channels, 1, self.layers, name="branch1")(x, train)]
        for number, rate in enumerate(self.rates, 2):
            conv = ConvNorm(self.channels, 3, self.layers, rate, name=f"branch{number}")
            branches.append(conv(x, train))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        mean = x.mean((1, 2), dtype=wide, keepdims=True).astype(x.dtype)
        pooled = ConvNorm(self.channels, 1, self.layers, name="pool")(mean, train)
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        joined = jnp.concatenate(branches, axis=-1)
        x = ConvNorm(self.channels, 1, self.layers, name="project")(joined, train)
        return nn.Dropout(self.dropout)(x, deterministic=not train)


class DeepLabV3Head(nn.Module):
    """ASPP, a 3×3 convolution and a classifier of every pixel, as in torchvision.

    Modules: ``aspp``, ``layer1`` and ``classifier``.

    Attributes:
      num_classes: outputs.
      channels: of all convolutions but the classifier.
      rates: dilations of the ASPP's 3×3 convolutions.
      layers: factories of the layers.
      dropout: dropout rate after the ASPP.
    """

    num_classes: int
    channels: int
    rates: Sequence[int]
    layers: HeadLayers
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return float32 logits ``(N, H, W, num_classes)`` for a map ``(N, H, W, C)``."""
        x = ASPP(self.channels, self.rates, self.layers, self.dropout, name="aspp")(x, train)
        x = ConvNorm(self.channels, 3, self.layers, name="layer1")(x, train)
        return classify(self.num_classes, x)
