"""Weights of the classes of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flax_resnet.text import truncate
from train.tasks.class_balance import BALANCED, class_numbers

if TYPE_CHECKING:  # the step needs no ml_collections
    from train.data.masks import MaskSource
    from train.runtime.config_dict import ConfigDict

_MAX_LISTED = 12  # classes that the description lists


@dataclass(frozen=True)
class PixelBalance:
    """Factors of the training loss of pixels of each class.

    Attributes:
      class_names: names of the K classes.
      weights: the factors ``(K,)``.
    """

    class_names: tuple[str, ...]
    weights: tuple[float, ...]

    def describe(self) -> str:
        """Return the weights that are not 1 as text."""
        others = [k for k, weight in enumerate(self.weights) if weight != 1]
        named = [
            f"{truncate(self.class_names[k], 40)} {self.weights[k]:.4g}"
            for k in others[:_MAX_LISTED]
        ]
        if len(others) > _MAX_LISTED:
            named.append(f"{len(others) - _MAX_LISTED} more")
        if len(others) < len(self.weights):
            named.append("others 1")
        return f"weight of each class's pixels in the loss: {', '.join(named)}"

    def describe_rare(self, batch_size: int) -> str:
        """Return nothing: an image has pixels of several classes."""
        return ""


def make_pixel_balance(config: ConfigDict, source: MaskSource) -> PixelBalance | None:
    """Return the weights of ``config.class_weights``; None if there are none.

    ``"balanced"`` weights are P / (K · p) for a class with p of the P pixels that have one of K
    classes, as of scikit-learn's ``compute_class_weight("balanced")`` on the pixels. Classes
    without a pixel do not count, and have 1.

    Raises:
      UsageError: the weights do not fit the classes.
      RunError: there are no pixels to count.
    """
    if not config.class_weights:
        return None
    if config.class_weights == BALANCED:
        from train.data.pixel_counts import count_class_pixels  # which decodes images

        pixels = count_class_pixels(source)
        balanced = pixels.sum() / (np.count_nonzero(pixels) * np.where(pixels, pixels, 1))
        weights = np.where(pixels > 0, balanced, 1.0)
    else:
        weights = class_numbers("class_weights", config.class_weights, source.class_names)
    return PixelBalance(tuple(source.class_names), tuple(weights.tolist()))
