"""Layers that the heads share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import layers


class HeadLayers(NamedTuple):
    """Factories of the layers of a head, see :mod:`flax_resnet.layers`.

    Attributes:
      conv: of convolutions.
      norm: of norms.
      activation: a function of an array.
    """

    conv: layers.Layer
    norm: layers.Layer
    activation: Callable[[jax.Array], jax.Array]


class ConvNorm(nn.Module):
    """Convolution ``conv``, norm ``norm`` and activation.

    Attributes:
      features: output channels.
      kernel: kernel size.
      layers: the factories.
      dilation: of the kernel.
    """

    features: int
    kernel: int
    layers: HeadLayers
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return ``(N, H, W, features)`` for ``(N, H, W, C)``."""
        conv, norm, activation = self.layers
        x = conv(self.features, self.kernel, dilation=self.dilation, name="conv")(x)
        return activation(norm(name="norm")(x, use_running_average=not train))


def classify(num_classes: int, x: jax.Array) -> jax.Array:
    """Return the float32 logits ``(N, H, W, num_classes)`` of every pixel of ``(N, H, W, C)``.

    They are computed in float32, like those of a ResNet. To be called in a head, whose convolution
    ``classifier`` computes them.
    """
    conv = layers.conv(
        num_classes, 1, bias="all", kernel_init=layers.uniform, dtype=jnp.float32, name="classifier"
    )
    return conv(x.astype(jnp.float32))
