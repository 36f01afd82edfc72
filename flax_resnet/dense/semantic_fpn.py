"""Semantic head of a feature pyramid (Kirillov et al. 2019, arXiv:1901.02446, section 3.1)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet.dense.head_layers import ConvNorm, HeadLayers, classify
from flax_resnet.dense.pyramid import FeaturePyramid
from flax_resnet.dense.resizing import resize_bilinear


class SemanticFPNHead(nn.Module):
    """Brings all levels of a feature pyramid to the finest one's size, adds and classifies them.

    A level is enlarged step by step to the size of each finer one, with a 3×3 convolution before
    each step; the finest one has a convolution only.

    Modules: ``pyramid``, ``stage{n}_layer{i}`` and ``classifier``.

    Attributes:
      num_classes: outputs.
      channels: of the convolutions after the pyramid.
      pyramid_channels: of the pyramid's levels.
      layers: factories of the layers.
      dropout: dropout rate before the classifier.
      dtype: dtype of the pyramid's computation.
    """

    num_classes: int
    channels: int
    pyramid_channels: int
    layers: HeadLayers
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Mapping[str, jax.Array], train: bool = False) -> jax.Array:
        """Return float32 logits ``(N, H, W, num_classes)`` at the size of the finest level.

        Args:
          maps: those of ``endpoints``.
          train: whether norms use the statistics of the batch, and dropout is active.
        """
        levels = FeaturePyramid(self.pyramid_channels, self.dtype, name="pyramid")(maps)
        sizes = [level.shape[1:3] for level in levels.values()]
        total = None
        for index, (stage, x) in enumerate(levels.items()):
            steps = sizes[:index][::-1] or sizes[:1]  # from the next finer level's to the finest's
            for number, size in enumerate(steps, 1):
                x = ConvNorm(self.channels, 3, self.layers, name=f"{stage}_layer{number}")(x, train)
                x = resize_bilinear(x, size)
            total = x if total is None else total + x
        x = nn.Dropout(self.dropout)(total, deterministic=not train)
        return classify(self.num_classes, x)
