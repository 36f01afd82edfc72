"""Head of fully convolutional networks (FCN, Long et al. 2015, arXiv:1411.4038)."""

import jax
from flax import linen as nn

from flax_resnet.dense.head_layers import ConvNorm, HeadLayers, classify


class FCNHead(nn.Module):
    """torchvision's FCN head: a 3×3 convolution and a classifier of every pixel.

    Modules: ``layer1`` and ``classifier``.

    Attributes:
      num_classes: outputs.
      channels: of the 3×3 convolution.
      layers: factories of the layers.
      dropout: dropout rate before the classifier.
    """

    num_classes: int
    channels: int
    layers: HeadLayers
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return float32 logits ``(N, H, W, num_classes)`` for a map ``(N, H, W, C)``."""
        x = ConvNorm(self.channels, 3, self.layers, name="layer1")(x, train)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return classify(self.num_classes, x)
