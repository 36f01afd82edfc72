"""Weights of the classes of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flax_resnet.text import truncate
from train.runtime.errors import UsageError
from train.tasks.class_balance import BALANCED, class_numbers

if TYPE_CHECKING:  # the step needs no ml_collections
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
        more = f" and {len(others) - _MAX_LISTED} more" if len(others) > _MAX_LISTED else ""
        return f"weight of each class's pixels in the loss: {', '.join(named)}{more}, others 1"

    def describe_rare(self, batch_size: int) -> str:
        """Return nothing: an image has pixels of several classes."""
        return ""


def make_pixel_balance(config: ConfigDict, class_names: Sequence[str]) -> PixelBalance | None:
    """Return the weights of ``config.class_weights``; None if there are none.

    Raises:
      UsageError: they are ``"balanced"``, or do not fit the classes.
    """
    if not config.class_weights:
        return None
    if config.class_weights == BALANCED:
        raise UsageError(
            f"config.class_weights={BALANCED!r} would need the pixels of each class, which are not"
            " counted before a run; give numbers by class, such as 'road=0.5,pole=4'"
        )
    weights = class_numbers("class_weights", config.class_weights, class_names)
    return PixelBalance(tuple(class_names), tuple(np.asarray(weights).tolist()))
