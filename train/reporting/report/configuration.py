"""The section of ``report.html`` on the configuration."""

from typing import Any

from train.config.access import flatten
from train.config.keys import KEYS
from train.config.task_defaults import default_value
from train.reporting import html_page
from train.runtime.formatting import format_number, pluralize


def section(config: Any) -> str:
    """Return the keys that are not at their defaults, and the others, both folded."""
    values = flatten(config)
    changed, others = [], []
    for name, key in KEYS.items():
        if name not in values:  # a key of another recipe
            continue
        default = default_value(name, values["task"])
        row = (f"{name}\n{key.meaning}", *map(format_value, (values[name], default)))
        (others if values[name] == default else changed).append(row)
    defaults = [row[:2] for row in others]
    return html_page.section(
        "Configuration",
        html_page.paragraph("A click on a key shows its meaning.", "weak no-print"),
        html_page.folded(
            f"{pluralize(len(changed), 'key')} with other values than the defaults",
            _table(("key", "value", "default"), changed, "keys with other values"),
        ),
        html_page.folded(
            f"{pluralize(len(others), 'key')} with their default values",
            _table(("key", "value"), defaults, "keys with their default values"),
        ),
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], label: str) -> str:
    return html_page.table(head, rows, label, stacks=True, folds_notes=True)


def format_value(value: Any) -> str:
    """Return a value of the configuration as text."""
    if type(value) is float and "e" in repr(value):  # 1e-6, as other numbers; Python has 1e-06
        return format_number(value, 17)
    return repr(value) if isinstance(value, str) else str(value)
