"""The section of ``report.html`` on the configuration."""

from typing import Any

from train.config.access import flatten
from train.config.keys import KEYS
from train.config.task_defaults import default_value
from train.reporting import html_page


def section(config: Any) -> str:
    """Return a table of the keys that are not at their defaults, and one of the others, folded."""
    values = flatten(config)
    changed, others = [], []
    for name, key in KEYS.items():
        if name not in values:  # a key of another recipe
            continue
        default = default_value(name, values["task"])
        row = (f"{name}\n{key.meaning}", *map(format_value, (values[name], default)))
        (others if values[name] == default else changed).append(row)
    defaults = [row[:2] for row in others]
    table = html_page.table(("key", "value"), defaults, "keys with their default values")
    return html_page.section(
        "Configuration",
        html_page.table(("key", "value", "default"), changed, "keys with other values"),
        html_page.folded(f"{len(others)} keys with their default values", table),
    )


def format_value(value: Any) -> str:
    """Return a value of the configuration as text."""
    return repr(value) if isinstance(value, str) else str(value)
