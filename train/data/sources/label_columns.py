"""Labels of images with any number of classes: several names in a field, or a column per class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from flax_resnet.text import truncate
from train.data.sources.table_columns import CLASS, LABEL
from train.data.sources.table_file import Table
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError

_VALUES = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
INVALID = "\0"  # first character of a label that cannot be used; the rest is the reason


def join_labels(table: Table, dataset: ConfigDict) -> tuple[Table, tuple[str, ...]]:
    """Return a table whose labels are sorted names of classes joined by the separator.

    Args:
      table: with the column ``LABEL``, or with one column per class.
      dataset: ``config.dataset`` with ``label_key`` and ``label_separator``.

    Returns:
      The table; a label that cannot be used starts with ``INVALID``. And the classes of columns,
      in their order; none if the labels are names.

    Raises:
      UsageError: a column without a choice by ``label_key`` is not of zeros and ones, or the
        name of a class has the separator.
    """
    separator = dataset.label_separator
    columns = {k: texts for k, texts in table.columns.items() if not k.startswith(CLASS)}
    if LABEL in columns:
        known: dict[str, str] = {}
        for text in columns[LABEL]:
            if text not in known:
                known[text] = _sorted_names(text, separator)
        labels = [known[text] for text in columns[LABEL]]
        return replace(table, columns={**columns, LABEL: labels}), ()
    classes = {
        k.removeprefix(CLASS): texts for k, texts in table.columns.items() if k not in columns
    }
    for name in classes:
        if separator in name:
            raise UsageError(
                f"the class {name!r} has the separator {separator!r} in its name; choose another"
                " one with --config.dataset.label_separator"
            )
    values = {name: _values(texts) for name, texts in classes.items()}
    if not dataset.label_key:
        _check_columns(classes, values, table.path)
    names = sorted(classes)
    matrix = np.stack([values[name] for name in names], axis=1)
    labels = []
    for number, row in enumerate(matrix):
        label = separator.join([names[k] for k in np.flatnonzero(row == 1)])
        if (row < 0).any():
            name = names[int(row.argmin())]
            label = f"{INVALID}{truncate(classes[name][number])!r} in the column {name!r}"
        labels.append(label)
    return replace(table, columns={**columns, LABEL: labels}), tuple(classes)


def split_label(label: str, separator: str) -> list[str]:
    """Return the names of the classes in a label of :func:`join_labels`."""
    return label.split(separator) if label else []


def _sorted_names(text: str, separator: str) -> str:
    """Return the names in a field without spaces around them, sorted, each once."""
    if not text.strip():
        return ""
    names = {name.strip() for name in text.split(separator)}
    if "" in names:
        return f"{INVALID}{truncate(text)!r}, which has an empty name"
    return separator.join(sorted(names))


def _values(texts: Sequence[str]) -> np.ndarray:
    """Return 0 or 1 for each text of a column, and -1 for other texts, int8 ``(N,)``."""
    numbers = {text: int(_VALUES.get(text.strip().casefold(), -1)) for text in {*texts}}
    return np.array([numbers[text] for text in texts], np.int8)


def _check_columns(
    classes: Mapping[str, Sequence[str]], values: Mapping[str, np.ndarray], path: str
) -> None:
    """Raise UsageError for a column, which nobody chose, that is mostly of other values."""
    for name, column in values.items():
        wrong = np.flatnonzero(column < 0)
        if 2 * len(wrong) > len(column):
            raise UsageError(
                f"{path!r} has no column of labels such as 'label', and the column {name!r} is no"
                f" class of zeros and ones: it has {truncate(classes[name][wrong[0]])!r}; choose"
                " the column of labels, or those of the classes, with"
                " --config.dataset.label_key=COLUMN,COLUMN"
            )
