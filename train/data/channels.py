"""Mean and standard deviation of each channel of a configuration's images. Imports no JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flax_resnet.images.pixels import RGB_MEAN, RGB_STD
from train.runtime.errors import UsageError

if TYPE_CHECKING:  # the steps need no ml_collections
    from train.runtime.config_dict import ConfigDict

_DEFAULTS = {"mean": (RGB_MEAN, 0.5), "std": (RGB_STD, 0.25)}  # of RGB, and of other channels


def mean_and_std(dataset: ConfigDict) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, from ``config.dataset``.

    Raises:
      UsageError: their number differs from ``channels``.
    """
    return _per_channel(dataset, "mean"), _per_channel(dataset, "std")


def assumes_statistics(dataset: ConfigDict) -> bool:
    """Return whether a mean or standard deviation is assumed, since the configuration has none."""
    return any(_is_assumed(dataset, name) for name in _DEFAULTS)


def _is_assumed(dataset: ConfigDict, name: str) -> bool:
    of_rgb, _ = _DEFAULTS[name]
    return tuple(dataset[name]) == of_rgb and dataset.channels != len(of_rgb)


def _per_channel(dataset: ConfigDict, name: str) -> tuple[float, ...]:
    if _is_assumed(dataset, name):
        return (_DEFAULTS[name][1],) * dataset.channels
    values = tuple(dataset[name])
    if len(values) == 1:
        return values * dataset.channels
    if len(values) != dataset.channels:
        raise UsageError(
            f"config.dataset.{name} must have a number for each of the {dataset.channels}"
            f" dataset.channels, or one for all, not {values}; train.statistics measures those of"
            " the training images"
        )
    return values
