"""The columns of a table of labels: image, label or classes, and perhaps split, group, weight."""

from collections.abc import Mapping, Sequence

from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names

IMAGE, LABEL, SPLIT, GROUP, WEIGHT = "image", "label", "split", "group", "weight"
CLASS = "class="  # before the name of a class that has a column of zeros and ones
_KEYS = "--config.dataset."
NONE = "none"  # a key's value: no such column

# Columns that are images or labels if no key chooses others.
_USUAL = {
    IMAGE: (
        *("image", "images", "img", "image_path", "image_file", "image_name", "image_filename"),
        *("file", "file_name", "filename", "file_path", "filepath", "path"),
    ),
    LABEL: ("label", "labels", "class", "class_name", "category", "target"),
}
_OPTIONAL = (SPLIT, GROUP, WEIGHT)  # columns of these names are used


def choose_columns(names: Sequence[str], dataset: ConfigDict, path: str) -> Mapping[str, str]:
    """Return the names of the columns by purpose.

    Args:
      names: names of all columns.
      dataset: ``config.dataset`` with ``image_key``, ``label_key``, ``split_key``, ``group_key``,
        ``weight_key`` and, for images with several classes, ``label_separator``.
      path: the table, for messages.

    Raises:
      UsageError: a column is missing or cannot be detected.
    """
    if dataset.group_key not in ("", NONE) and dataset.group_pattern:
        raise UsageError(
            f"config.dataset.group_key={dataset.group_key!r} and"
            f" group_pattern={dataset.group_pattern!r} exclude each other; reset one to ''"
        )
    chosen = {IMAGE: choose_column(names, IMAGE, dataset.image_key, path)}
    for purpose in _OPTIONAL:
        key = dataset[f"{purpose}_key"]
        if key == NONE or (purpose == GROUP and dataset.group_pattern):
            continue
        named = [name for name in names if name.casefold() == purpose]
        if key:
            chosen[purpose] = _named(key, names, _KEYS, purpose, path)
        elif len(named) == 1:
            chosen[purpose] = named[0]
    if not dataset.label_separator:
        return chosen | {LABEL: choose_column(names, LABEL, dataset.label_key, path)}
    return chosen | _label_columns(names, {*chosen.values()}, dataset.label_key, path)


def _label_columns(
    names: Sequence[str], others: set[str], key: str, path: str
) -> Mapping[str, str]:
    """Return the column of labels or, if there is none, those of the classes."""
    if key and (key in names or "," not in key):
        return {LABEL: choose_column(names, LABEL, key, path)}
    if key:
        classes = [_named(name.strip(), names, _KEYS, LABEL, path) for name in key.split(",")]
    elif any(name.casefold() in _USUAL[LABEL] for name in names):
        return {LABEL: choose_column(names, LABEL, key, path)}
    else:
        classes = [name for name in names if name not in others]
    if len(classes) < 2:
        return {LABEL: choose_column(names, LABEL, key, path)}
    return {f"{CLASS}{name}": name for name in classes}


def choose_column(
    names: Sequence[str], purpose: str, key: str, path: str, flags: str = _KEYS
) -> str:
    """Return the name of the column of images or labels.

    Args:
      names: names of all columns.
      purpose: ``IMAGE`` or ``LABEL``.
      key: the chosen column; "" to detect it.
      path: the table, for messages.
      flags: what precedes ``image_key=COLUMN`` on the command line.

    Raises:
      UsageError: there is no such column, or it cannot be detected.
    """
    if key:
        return _named(key, names, flags, purpose, path)
    usual = [name for name in names if name.casefold() in _USUAL[purpose]]
    if len(usual) == 1:
        return usual[0]
    problem = f"several columns that may be {purpose}s" if usual else f"no column of {purpose}s"
    advice = f"choose with {flags}{purpose}_key=COLUMN"
    if len({*usual}) < len(usual):
        advice = "give every column a name of its own"
    elif len(names) == 1:
        advice += f", or set {flags}delimiter=CHARACTER if they are separated by another one"
    elif not usual:
        advice = f"the first line must name the columns; {advice}"
        if purpose == LABEL and len(names) > 2:
            advice += ", or set task='multi_label' for a column of zeros and ones per class"
    raise UsageError(f"{path!r} has {problem} among {_listed(usual or names)}; {advice}")


def _named(key: str, names: Sequence[str], flags: str, purpose: str, path: str) -> str:
    if key in names:
        return key
    raise UsageError(
        f"{path!r} has no column {key!r} ({flags}{purpose}_key); it has {_listed(names)}"
    )


def _listed(names: Sequence[str]) -> str:
    return join_names([repr(name) for name in names], 12)
