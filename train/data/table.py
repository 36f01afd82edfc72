"""Images whose labels are in a table, a CSV or Parquet file.

The table has a row per image, with the path of its file and the name of its class, and perhaps
with its split, group and weight. Rows that cannot be used are kept as ``DataSource.table``.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from flax_resnet.text import truncate
from train.data import wrong_rows
from train.data.hold_out import groups_by_pattern, hold_out
from train.data.image_folder import ImageFolder
from train.data.registries import register_source
from train.data.source import DataSource, fingerprint, source_argument
from train.data.splits import HELD_OUT_PART, locate_split
from train.data.table_columns import GROUP, IMAGE, LABEL, SPLIT, WEIGHT, choose_columns
from train.data.table_file import Table, read_table
from train.data.wrong_rows import TableRows, WrongRow
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

_MIN_LISTED = 50  # rows with files in a folder from which it is listed, instead of each file tested


@register_source("table")
def open_table(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of the images in the table ``config.dataset.labels``.

    Without a column of splits, or of evaluation splits, a part is held out, as of a folder.

    Raises:
      UsageError: there are no such columns or splits, or fewer than two classes.
      RunError: the table cannot be read, or the folder of the images does not exist.
    """
    source_argument(dataset)
    table = read_labels(dataset)
    root = dataset.data_dir or os.path.dirname(table.path)
    if "://" in root or not os.path.isdir(root):
        raise RunError(
            f"{root!r} is no folder; set --config.dataset.data_dir=FOLDER to the folder to which"
            f" the paths in {table.path!r} are relative"
        )
    rows = _Rows(table, root, frozenset(dataset.class_names))
    rows.drop_unusable()
    names = _class_names(dataset, rows, table.path)
    numbers = {name: number for number, name in enumerate(names)}
    existing = {*rows.values(SPLIT)} if SPLIT in table.columns else set()
    name, part = locate_split(split, existing, f"the table {table.path!r}", bool(dataset.fold))
    used = [row for row in rows.used if not name or table.columns[SPLIT][row] == name]
    files = [table.columns[IMAGE][row] for row in used]
    labels = np.array([numbers[table.columns[LABEL][row]] for row in used], np.int32)
    groups = None
    if dataset.group_pattern:
        groups = groups_by_pattern(dataset.group_pattern, files)
    elif GROUP in table.columns:
        groups = [table.columns[GROUP][row] for row in used]
    if part:
        selection = dataset.val_fraction, dataset.val_seed
        kept = hold_out(part, files, labels, groups, names, *selection)
    else:
        kept = np.arange(len(used))
    used = [used[i] for i in kept]
    files = tuple(files[i] for i in kept)
    weights = None
    if WEIGHT in table.columns:
        weights = np.array([table.columns[WEIGHT][row] for row in used], np.float32)
    labels = tuple(labels[kept].tolist())
    return DataSource(
        "table",
        split,
        names,
        ImageFolder(root, files, labels),
        names=files,
        weights=weights,
        groups=None if groups is None else tuple(groups[i] for i in kept),
        table=TableRows(table.path, rows.count, rows.wrong, rows.repeated),
        fingerprint=fingerprint(files, labels, weights),
        is_held_out=part == HELD_OUT_PART,
    )


def read_labels(dataset: ConfigDict) -> Table:
    """Read the columns of ``config.dataset.labels`` that the configuration names or means."""
    if not dataset.labels:
        raise UsageError(
            "set --config.dataset.labels=FILE to the table with the columns image and label"
        )
    if "://" in dataset.labels:
        raise UsageError(f"a table of labels must be on a local disk, not {dataset.labels!r}")
    choose = partial(choose_columns, dataset=dataset, path=dataset.labels)
    return read_table(dataset.labels, dataset.delimiter, choose)


def has_splits(dataset: ConfigDict) -> bool:
    """Return whether the table ``config.dataset.labels`` has a column of splits."""
    return SPLIT in read_labels(dataset).columns


@dataclass
class _Rows:
    """The rows of a table, sorted into used, wrong and repeated ones.

    Attributes:
      table: the columns.
      root: folder to which paths are relative.
      class_names: the classes; none for all labels.
    """

    table: Table
    root: str
    class_names: frozenset[str]

    def __post_init__(self):
        self.count = len(self.table) + len(self.table.uneven)
        self.used: list[int] = []
        self.wrong: list[WrongRow] = []
        self.repeated: list[WrongRow] = []

    def values(self, purpose: str) -> list[str]:
        """Return the values of the used rows."""
        column = self.table.columns[purpose]
        return [column[row] for row in self.used]

    def drop_unusable(self) -> None:
        """Fill ``used``, ``wrong`` and ``repeated``."""
        for line, fields in self.table.uneven:
            expected = len(self.table.names)
            text = f"{self.table.unit} {line:,}: {fields} fields, not {expected}"
            self.wrong.append(WrongRow(line, wrong_rows.FIELDS, text))
        self.used = [row for row in range(len(self.table)) if self._has_values(row)]
        self._drop_missing_files()
        self._drop_repeated()
        self.wrong.sort()

    def _reject(self, row: int, kind: str, reason: str) -> None:
        self.wrong.append(WrongRow(self.table.lines[row], kind, f"{self._place(row)}: {reason}"))

    def _place(self, row: int) -> str:
        return f"{self.table.unit} {self.table.lines[row]:,}"

    def _has_values(self, row: int) -> bool:
        """Return whether the row has all values, or reject it."""
        columns = self.table.columns
        image, label = columns[IMAGE][row], columns[LABEL][row]
        if not image or "\0" in image:
            self._reject(row, wrong_rows.NO_IMAGE, "no image")
        elif not label.strip() or "\0" in label:
            self._reject(row, wrong_rows.NO_LABEL, f"no label for {truncate(image)!r}")
        elif self.class_names and label not in self.class_names:
            self._reject(row, wrong_rows.UNKNOWN_CLASS, f"unknown class {truncate(label)!r}")
        elif SPLIT in columns and not columns[SPLIT][row]:
            self._reject(row, wrong_rows.NO_SPLIT, f"no split for {truncate(image)!r}")
        elif GROUP in columns and not columns[GROUP][row]:
            self._reject(row, wrong_rows.NO_GROUP, f"no group for {truncate(image)!r}")
        elif WEIGHT in columns and not _is_weight(columns[WEIGHT][row]):
            text = truncate(columns[WEIGHT][row])
            self._reject(row, wrong_rows.WEIGHT, f"weight {text!r} of {truncate(image)!r}")
        else:
            return True
        return False

    def _drop_missing_files(self) -> None:
        images = self.values(IMAGE)
        exists = existing_files(self.root, images)
        for row, image, found in zip(self.used, images, exists, strict=True):
            if not found:
                self._reject(row, wrong_rows.NO_FILE, f"no file {truncate(image, 200)!r}")
        self.used = [row for row, found in zip(self.used, exists, strict=True) if found]

    def _drop_repeated(self) -> None:
        """Drop rows that repeat another one, and all rows of images with contradictory ones."""
        rows_of: dict[str, list[int] | int] = {}  # a list of those that are used if several
        files = list(map(self._file, self.values(IMAGE)))
        contradictory = set()
        used = []
        for row, file in zip(self.used, files, strict=True):
            others = rows_of.setdefault(file, row)
            if others == row:
                used.append((file, row))
                continue
            others = rows_of[file] = others if isinstance(others, list) else [others]
            image = truncate(self.table.columns[IMAGE][row], 200)
            if difference := self._difference(row, others[0]):
                self._reject(row, wrong_rows.CONFLICT, f"{image!r} {difference}")
                contradictory.add(file)
            elif same := [other for other in others if self._split(other) == self._split(row)]:
                text = f"{self._place(row)}: {image!r} as in {self._place(same[0])}"
                self.repeated.append(WrongRow(self.table.lines[row], wrong_rows.REPEATED, text))
            else:  # in several splits, which is reported as a leak
                others.append(row)
                used.append((file, row))
        self.used = [row for file, row in used if file not in contradictory]

    def _file(self, path: str) -> str:
        return os.path.normpath(path if os.path.isabs(path) else f"{self.root}{os.sep}{path}")

    def _split(self, row: int) -> str:
        return self.table.columns[SPLIT][row] if SPLIT in self.table.columns else ""

    def _difference(self, row: int, other: int) -> str:
        """Return how two rows of the same image differ, except in their split."""
        for purpose in (LABEL, GROUP, WEIGHT):
            column = self.table.columns.get(purpose)
            if column and column[row] != column[other]:
                return (
                    f"has the {purpose} {truncate(column[row])!r}, but"
                    f" {truncate(column[other])!r} in {self._place(other)}"
                )
        return ""


def existing_files(root: str, paths: Sequence[str]) -> list[bool]:
    """Return whether each path below ``root``, or an absolute one, is a regular file.

    Folders of many of the files are listed, which is faster than testing each file.
    """
    by_folder: dict[str, list[int]] = {}
    names = []
    for index, path in enumerate(paths):
        folder, separator, name = path.rpartition(os.sep)
        by_folder.setdefault(folder + separator, []).append(index)
        names.append(name)
    exists = [False] * len(paths)
    for folder, indices in by_folder.items():
        listed = _regular_files(os.path.join(root, folder)) if len(indices) >= _MIN_LISTED else ()
        for index in indices:
            # A file system that ignores case has files that are not listed under that name.
            exists[index] = names[index] in listed or _is_file(os.path.join(root, paths[index]))
    return exists


def _regular_files(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except (OSError, ValueError):  # a name that the file system cannot have
        return False


def _is_weight(text: str) -> bool:
    try:
        weight = float(text)
    except ValueError:
        return False
    with np.errstate(over="ignore"):
        return 0 < np.float32(weight) < math.inf


def _class_names(dataset: ConfigDict, rows: _Rows, path: str) -> tuple[str, ...]:
    names = tuple(dataset.class_names) or tuple(sorted({*rows.values(LABEL)}))
    if len({*names}) < len(names):
        raise UsageError(f"config.dataset.class_names={names} has a name twice")
    if len(names) < 2:
        content = f"one class, {names[0]!r}" if names else "no rows that can be used"
        problems = [row.text for row in rows.wrong]
        found = f": {join_names(problems, wrong_rows.MAX_NAMED)}" if problems else ""
        raise UsageError(f"{path!r} has {content}; training needs two or more{found}")
    return names
