"""Keys that follow the preprocessing of pretrained weights, unless the user sets them.

A key counts as set if a recipe, the command line or Python code gave it any value, even that of
its default. Therefore the default itself is marked: it is of a subclass of its type.
"""

from typing import Any

from train.runtime.config_dict import ConfigDict

FOLLOWED = ("mean", "std", "image_size", "crop_pct", "interpolation")  # of the group "dataset"


class Unset:
    """Marker of a value that the user has not set."""


class _UnsetInt(int, Unset):
    pass


class _UnsetFloat(float, Unset):
    pass


class _UnsetText(str, Unset):
    pass


class _UnsetTuple(tuple, Unset):
    pass


_MARKED = {int: _UnsetInt, float: _UnsetFloat, str: _UnsetText, tuple: _UnsetTuple}


def mark_unset(value: Any) -> Any:
    """Return an equal value that counts as not set by the user."""
    return next(marked(value) for kind, marked in _MARKED.items() if isinstance(value, kind))


def keep_followed(config: ConfigDict, stored: ConfigDict) -> None:
    """Give keys that followed the weights when a run started, and are not set, their values.

    Args:
      config: the configuration with which the run is resumed; changed in place.
      stored: that with which it started.
    """
    for name in stored.init_followed:
        if name in FOLLOWED and isinstance(config.dataset[name], Unset):
            config.dataset[name] = mark_unset(stored.dataset[name])
    config.init_followed = stored.init_followed
