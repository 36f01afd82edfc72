"""Class weights, logit adjustment, and the distribution of classes that a training loss sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flax_resnet.text import truncate
from train.runtime.errors import UsageError
from train.runtime.formatting import format_percent, join_names

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict

BALANCED = "balanced"
_WEIGHT = re.compile(r"\s*(.+?)\s*=\s*([^\s,=]+)\s*(?:,|$)")
_MAX_SPREAD = 0.3  # of the mean weights of batches; above it shares in the loss are noticeably off
_MAX_LISTED = 12  # classes that the description lists; of more the rarest and most frequent


@dataclass(frozen=True)
class ClassBalance:
    """How often and with which weight the training loss sees each class.

    Attributes:
      class_names: names of the K classes.
      counts: training images of each class ``(K,)``.
      sampled: share of each class in the sampled images ``(K,)``.
      effective: share of each class in the loss ``(K,)``, with sampling and weights.
      class_weights: factor of the loss of each class ``(K,)``, with a mean of 1 over the sampled
        images; None: all are 1.
      logit_adjustment: added to the logits in the training loss ``(K,)``; None: nothing.
    """

    class_names: tuple[str, ...]
    counts: np.ndarray
    sampled: np.ndarray
    effective: np.ndarray
    class_weights: tuple[float, ...] | None
    logit_adjustment: tuple[float, ...] | None

    def describe(self) -> str:
        """Return a sentence with the share of classes in the images and in the loss."""
        order = np.argsort(self.counts, kind="stable")
        if len(order) > _MAX_LISTED:
            order = np.concatenate([order[: _MAX_LISTED // 2], order[-_MAX_LISTED // 2 :]])
        else:
            order = np.arange(len(order))
        images = self.counts / self.counts.sum()
        parts = [
            f"{truncate(self.class_names[i], 40)} {format_percent(images[i])} →"
            f" {format_percent(self.effective[i])}"
            for i in order
        ]
        if len(order) < len(self.counts):
            parts.insert(_MAX_LISTED // 2, "…")
        text = f"share of each class in the training images → in the loss: {', '.join(parts)}"
        if self.logit_adjustment is not None:
            text += "; logits are adjusted by the latter"
        return text

    def describe_rare(self, batch_size: int) -> str:
        """Return that weights do not give the rare classes their shares; empty if they do.

        Weights are divided by their mean in every batch: in one without a class the others have
        all of the loss. So shares are reached only if these means differ little.

        Args:
          batch_size: images of a global batch.
        """
        if self.class_weights is None:
            return ""
        weights = np.array(self.class_weights)
        variance = (self.sampled @ weights**2 - (self.sampled @ weights) ** 2) / batch_size
        if variance <= _MAX_SPREAD**2:
            return ""
        top = int(np.where(self.sampled > 0, weights, 0).argmax())
        return (
            f"a batch of {batch_size:,} has {self.sampled[top] * batch_size:.2g} images of"
            f" {truncate(self.class_names[top], 40)!r} on average, and batches without it leave the"
            " loss to the other classes, so its share is lower than that; use larger batches, or"
            " loader.sampling='balanced' instead of weights"
        )


def make_balance(config: ConfigDict, source: DataSource) -> ClassBalance | None:
    """Return the balance of a configuration; None if it does not change the classes' shares.

    Args:
      config: the configuration.
      source: the training images.

    Raises:
      UsageError: keys exclude each other, or do not fit the classes.
    """
    sampling, weighting = config.loader.sampling, config.class_weights
    if sampling != BALANCED and not weighting and not config.logit_adjustment:
        return None
    check_combination(config)
    labels, classes = source.all_labels(), len(source.class_names)
    counts = source.class_counts()
    sampled = counts / len(labels)
    if sampling == BALANCED:
        sampled = (counts > 0) / np.count_nonzero(counts)
    share = sampled.copy()
    if source.weights is not None:  # the mean weight of the images of each class
        share *= np.bincount(labels, source.weights, classes) / np.maximum(counts, 1)
        share /= share.sum()
    class_weights = None
    if weighting:
        class_weights = _class_weights(weighting, source.class_names, share)
        share = share * class_weights
    adjustment = None
    if config.logit_adjustment:
        _check_prior(config, source, share)
        adjustment = config.logit_adjustment * np.log(share)
    return ClassBalance(
        source.class_names,
        counts,
        sampled,
        share,
        None if class_weights is None else tuple(class_weights.tolist()),
        None if adjustment is None else tuple(adjustment.tolist()),
    )


def check_combination(config: ConfigDict) -> None:
    """Raise UsageError for keys that balance the classes twice."""
    active = {
        "loader.sampling='balanced'": config.loader.sampling == BALANCED,
        "class_weights='balanced'": config.class_weights == BALANCED,
        f"logit_adjustment={config.logit_adjustment:g}": config.logit_adjustment > 0,
    }
    names = [name for name, applies in active.items() if applies]
    if len(names) > 1:
        raise UsageError(
            f"config.{names[0]} and config.{names[1]} each balance the classes, and together would"
            " do it twice; choose one of them (class_weights with numbers fit all)"
        )


def _class_weights(text: str, class_names: Sequence[str], share: np.ndarray) -> np.ndarray:
    """Return the weights of the classes, with a mean of 1.

    Args:
      text: ``"balanced"`` for weights inversely proportional to the shares, those of
        scikit-learn's ``compute_class_weight("balanced")``, or numbers by name.
      class_names: names of the classes.
      share: the share of each class without these weights.
    """
    if text == BALANCED:
        exists = share > 0
        return np.where(exists, 1 / (np.count_nonzero(exists) * np.where(exists, share, 1)), 1.0)
    weights = class_numbers("class_weights", text, class_names)
    return weights / (share @ weights)


def class_numbers(key: str, text: str, class_names: Sequence[str]) -> np.ndarray:
    """Return the numbers of :func:`parse_weights` by class, float64 ``(K,)``; 1 for the others.

    Raises:
      UsageError: there is no such class.
    """
    numbers = np.ones(len(class_names))
    for name, number in parse_weights(text, key).items():
        if name not in class_names:
            raise UsageError(
                f"config.{key} names {truncate(name)!r}, which is none of the classes"
                f" {join_names(class_names)}"
            )
        numbers[class_names.index(name)] = number
    return numbers


def parse_weights(text: str, key: str = "class_weights") -> dict[str, float]:
    """Return the numbers by name of a text such as ``"cat=2,large, gray dog=0.5"``.

    Args:
      text: the value of a key.
      key: the key, for messages.

    Raises:
      UsageError: it is not of that form, or a number is not above 0.
    """
    advice = f"config.{key} must be 'balanced', or numbers by class such as 'cat=2,dog=0.5'"
    weights: dict[str, float] = {}
    position = 0
    while position < len(text):
        match = _WEIGHT.match(text, position)
        if not match:
            raise UsageError(f"{advice}, not {truncate(text)!r}")
        name, number = match.groups()
        try:
            weights[name], repeated = float(number), name in weights
        except ValueError:
            raise UsageError(f"{advice}, not {truncate(number)!r} for {truncate(name)!r}") from None
        if repeated:
            raise UsageError(f"config.{key} names {truncate(name)!r} twice")
        if not 0 < weights[name] < np.inf:
            raise UsageError(
                f"config.{key} must be above 0 and finite, not {number} for"
                f" {truncate(name)!r}; leave images of a class out of the data instead"
            )
        position = match.end()
    return weights


def _check_prior(config: ConfigDict, source: DataSource, share: np.ndarray) -> None:
    """Raise UsageError if a class has no share, whose logarithm would be added to its logit."""
    missing = [name for name, value in zip(source.class_names, share, strict=True) if not value]
    if missing or config.model.num_classes > len(share):
        which = join_names(missing, 4) if missing else "outputs beyond the classes"
        raise UsageError(
            f"config.logit_adjustment needs training images of every output; there are none of"
            f" {which}"
        )
