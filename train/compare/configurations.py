"""Which runs have the same configuration."""

from collections.abc import Hashable, Mapping
from typing import Any

from train.config.keys import KEYS
from train.config.task_defaults import default_value

# Neutral keys that decide which state of a run is its last or its best one.
_CHOOSING = ("eval.metric", "stop.patience", "stop.min_delta", "stop.minutes")


def affects_results(name: str) -> bool:
    """Return whether a key has an effect on the results of a run."""
    return not KEYS[name].neutral or name in _CHOOSING


def identity(values: Mapping[str, Any], *without: str) -> Hashable:
    """Return what is equal for runs of the same configuration, apart from some keys.

    Args:
      values: the configuration of a run, as ``{"group.key": value}``.
      without: keys that may differ, such as ``"seed"``.
    """
    names = [name for name in KEYS if affects_results(name)]
    names.append("recipe")  # the code of own parts
    task = values.get("task", KEYS["task"].default)
    return tuple(
        values.get(name, default_value(name, task)) for name in names if name not in without
    )
