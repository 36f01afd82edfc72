"""Images whose labels are in a table, a CSV or Parquet file.

The table has a row per image, with the path of its file and the name of its class, and perhaps
with its split, group and weight. With ``config.dataset.label_separator`` an image may have any
number of classes. Rows that cannot be used are kept as ``DataSource.table``.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from train.data import wrong_rows
from train.data.hold_out import groups_by_pattern, hold_out
from train.data.registries import register_source
from train.data.source import DataSource, fingerprint, source_argument
from train.data.sources.image_folder import ImageFolder
from train.data.sources.table_columns import GROUP, IMAGE, LABEL, SPLIT, WEIGHT
from train.data.sources.table_rows import Rows, read_rows
from train.data.splits import HELD_OUT_PART, locate_split, name_located
from train.data.wrong_rows import TableRows
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names


@register_source("table")
def open_table(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of the images in the table ``config.dataset.labels``.

    Without a column of splits, or of evaluation splits, a part is held out, as of a folder.

    Raises:
      UsageError: there are no such columns or splits, or fewer than two classes.
      RunError: the table cannot be read, or the folder of the images does not exist.
    """
    source_argument(dataset)
    rows = read_rows(dataset)
    table = rows.table
    names = _check_names(rows, table.path)
    existing = {*table.columns.get(SPLIT, ())} - {""}  # also of wrong rows
    name, part = locate_split(split, existing, f"the table {table.path!r}", bool(dataset.fold))
    used = [row for row in rows.used if not name or table.columns[SPLIT][row] == name]
    other_splits = Counter(rows.values(SPLIT) if name else ())
    del other_splits[name]
    files = [table.columns[IMAGE][row] for row in used]
    labels, label_sets = _number_labels(rows, [table.columns[LABEL][row] for row in used], names)
    targets = labels if label_sets is None else label_sets[labels].astype(np.uint8)
    groups = None
    if dataset.group_pattern:
        groups = groups_by_pattern(dataset.group_pattern, files)
    elif GROUP in table.columns:
        groups = [table.columns[GROUP][row] for row in used]
    if part:
        selection = dataset.val_fraction, dataset.val_seed
        kept = hold_out(part, files, targets, groups, names, *selection)
    else:
        kept = np.arange(len(used))
    used = [used[i] for i in kept]
    files = tuple(files[i] for i in kept)
    weights = None
    if WEIGHT in table.columns:
        weights = np.array([table.columns[WEIGHT][row] for row in used], np.float32)
    labels, targets = tuple(labels[kept].tolist()), targets[kept]
    return DataSource(
        "table",
        name_located(split, name, part),
        names,
        ImageFolder(rows.root, files, labels),
        names=files,
        weights=weights,
        groups=None if groups is None else tuple(groups[i] for i in kept),
        table=TableRows(table.path, rows.count, rows.wrong, rows.repeated, other_splits),
        fingerprint=fingerprint(files, targets, weights),
        is_held_out=part == HELD_OUT_PART,
        label_sets=label_sets,
    )


def _number_labels(
    rows: Rows, texts: Sequence[str], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return labels int32 ``(N,)``, and the sets of classes if images may have several."""
    numbers = {name: number for number, name in enumerate(names)}
    if not rows.separator:
        return np.array([numbers[text] for text in texts], np.int32), None
    different = sorted({*texts})
    sets = np.zeros((len(different), len(names)), bool)
    for row, text in enumerate(different):
        sets[row, [numbers[name] for name in rows.classes(text)]] = True
    number = {text: row for row, text in enumerate(different)}
    return np.array([number[text] for text in texts], np.int32), sets


def _check_names(rows: Rows, path: str) -> tuple[str, ...]:
    names = rows.class_names
    if len({*names}) < len(names):
        raise UsageError(f"config.dataset.class_names={names} has a name twice")
    if len(names) < 2:
        empty = "no image with a class" if rows.used else "no rows that can be used"
        content = f"one class, {names[0]!r}" if names else empty
        problems = [row.text for row in rows.wrong]
        found = f": {join_names(problems, wrong_rows.MAX_NAMED)}" if problems else ""
        raise UsageError(f"{path!r} has {content}; training needs two or more{found}")
    return names
