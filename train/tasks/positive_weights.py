"""Weights of positive labels: how much more a found class counts than an absent one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flax_resnet.text import truncate
from train.runtime.errors import UsageError
from train.runtime.formatting import format_percent
from train.tasks.class_balance import BALANCED, class_numbers

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict

_MAX_LISTED = 12  # classes that the description lists


@dataclass(frozen=True)
class PositiveWeights:
    """Factors of the training loss of each class's positive labels.

    Attributes:
      class_names: names of the K classes.
      shares: share of the training images of each class ``(K,)``.
      weights: the factors ``(K,)``.
    """

    class_names: tuple[str, ...]
    shares: np.ndarray
    weights: tuple[float, ...]

    def describe(self) -> str:
        """Return a sentence with the share of each class in the images and in the loss.

        In the loss it is the weight of the positive labels among all of the class.
        """
        order = np.argsort(self.shares, kind="stable")[:_MAX_LISTED]
        if len(self.shares) <= _MAX_LISTED:
            order = np.arange(len(self.shares))
        weighted = self.shares * self.weights
        effective = weighted / (weighted + 1 - self.shares)
        parts = [
            f"{truncate(self.class_names[k], 40)} {format_percent(self.shares[k])} →"
            f" {format_percent(effective[k])} (weight {self.weights[k]:.3g})"
            for k in order
        ]
        more = "; the rarest of all" * (len(order) < len(self.shares))
        return f"share of positive labels in the images → in the loss: {', '.join(parts)}{more}"

    def describe_rare(self, batch_size: int) -> str:
        """Return nothing: the weights do not depend on the classes of a batch."""
        return ""


def make_positive_weights(config: ConfigDict, source: DataSource) -> PositiveWeights | None:
    """Return the weights of ``config.pos_weight``; None if there are none.

    Args:
      config: the configuration.
      source: the training images.

    Raises:
      UsageError: the numbers do not fit the classes, or ``"balanced"`` is undefined for a class
        that all images or none have.
    """
    if not config.pos_weight:
        return None
    names, counts = source.class_names, source.class_counts()
    if config.pos_weight == BALANCED:
        for name, count in zip(names, counts.tolist(), strict=True):
            if not 0 < count < len(source):
                which = "none" if not count else "all"
                raise UsageError(
                    f"config.pos_weight='balanced' needs training images with and without each"
                    f" class, but {which} of the {len(source):,} are of {truncate(name)!r}; give"
                    " numbers for some classes instead, such as 'cat=2'"
                )
        weights = (len(source) - counts) / counts
    else:
        weights = class_numbers("pos_weight", config.pos_weight, names)
    return PositiveWeights(names, counts / len(source), tuple(weights.tolist()))
