"""Stems: the layers before the first stage."""

from collections.abc import Sequence
from typing import NamedTuple


class Stem(NamedTuple):
    """Convolutions as (kernel, stride, fraction of the stem's width), and an optional max-pool.

    The max-pool is 3×3 with stride 2.
    """

    convolutions: Sequence[tuple[int, int, float]]
    pool: bool

    @property
    def stride(self) -> int:
        """Ratio of image to stem resolution."""
        total = 2 if self.pool else 1
        for _, stride, _ in self.convolutions:
            total *= stride
        return total


STEMS = {
    # He et al. 2015 (arXiv:1512.03385), table 1; section 4.2 for CIFAR.
    "imagenet": Stem([(7, 2, 1)], pool=True),
    "cifar": Stem([(3, 1, 1)], pool=False),
    "no_pool": Stem([(7, 2, 1)], pool=False),
    # ResNet-C (arXiv:1812.01187, section 4.1); ResNet-RS replaces the pool by a convolution
    # (arXiv:2103.07579, section 4.3).
    "deep": Stem([(3, 2, 0.5), (3, 1, 0.5), (3, 1, 1)], pool=True),
    # "T" in timm: three tiers of width.
    "tiered": Stem([(3, 2, 0.375), (3, 1, 0.5), (3, 1, 1)], pool=True),
    "deep_conv": Stem([(3, 2, 0.5), (3, 1, 0.5), (3, 1, 1), (3, 2, 1)], pool=False),
}
