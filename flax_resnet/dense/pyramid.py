"""Feature pyramid network (FPN, Lin et al. 2017, arXiv:1612.03144)."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnet import layers
from flax_resnet.dense.resizing import upsample_nearest

# torchvision's and the authors' initialization, of Xavier's variance for linear layers.
XAVIER = layers.VarianceScaling(1.0, "fan_in", "uniform")


class FeaturePyramid(nn.Module):
    """Maps with equal channels from the maps of a backbone, each with the context of coarser ones.

    >>> maps = backbone.apply(variables, images, method="endpoints")
    >>> pyramid = FeaturePyramid(channels=256)
    >>> levels = pyramid.apply(pyramid_variables, maps)  # {"stage1": (N, H/4, W/4, 256), …}

    Modules: ``lateral{n}``, a 1×1 convolution of the map of stage n, and ``output{n}``, the 3×3
    convolution of its sum with the coarser level. Both have biases and no norm, as in the paper.

    Attributes:
      channels: of all levels.
      dtype: dtype of the computation.
    """

    channels: int = 256
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Return a level ``(N, H, W, channels)`` for each stage, from the finest to the coarsest.

        Args:
          maps: those of ``endpoints``; ``stem`` is left out.
        """
        conv = partial(layers.conv, bias="all", kernel_init=XAVIER, dtype=self.dtype)
        levels: dict[str, jax.Array] = {}
        above = None
        for stage in reversed([name for name in maps if name != "stem"]):
            number = stage.removeprefix("stage")
            level = conv(self.channels, 1, name=f"lateral{number}")(maps[stage])
            if above is not None:
                level += upsample_nearest(above, level.shape[1:3])
            levels[stage] = conv(self.channels, 3, name=f"output{number}")(level)
            above = level
        return dict(reversed(levels.items()))
