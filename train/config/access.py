"""Configuration keys by their dotted names, such as ``"model.width"``."""

from typing import Any

from train.runtime.config_dict import ConfigDict


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Return the configuration as ``{"group.key": value}``, with tuples for sequences."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, group: ConfigDict) -> None:
        for name, value in group.items():
            if isinstance(value, ConfigDict):
                visit(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = tuple(value) if isinstance(value, list) else value

    visit("", config)
    return flat


def set_key(config: ConfigDict, name: str, value: Any) -> None:
    """Set the key ``name``, such as ``"model.width"``, without validation."""
    *groups, leaf = name.split(".")
    for group in groups:
        if group not in config:  # of an own key
            config[group] = {}
        config = config[group]
    config[leaf] = value
