"""The rows of a table of labels, sorted into those in use, wrong ones and repeated ones."""

import math
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from flax_resnet.text import truncate
from train.data import wrong_rows
from train.data.sources.label_columns import INVALID, join_labels, split_label
from train.data.sources.table_columns import GROUP, IMAGE, LABEL, SPLIT, WEIGHT, choose_columns
from train.data.sources.table_file import Table, read_table
from train.data.wrong_rows import WrongRow
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError

_MIN_LISTED = 50  # rows with files in a folder from which it is listed, instead of each file tested
_KEYS = (
    "labels",
    "delimiter",
    "class_names",
    "group_pattern",
    "label_separator",
)  # that decide about the rows
_COLUMN_KEYS = tuple(f"{purpose}_key" for purpose in (IMAGE, LABEL, SPLIT, GROUP, WEIGHT))

_SETTLED_NS = 10**8  # a file system may give changes within some milliseconds the same time


def read_rows(dataset: ConfigDict) -> "Rows":
    """Return the rows of the table ``config.dataset.labels``.

    The result is kept for the next split, until the table or a folder of images changes.

    Raises:
      UsageError: the columns are missing or cannot be detected.
      RunError: the table cannot be read, or the folder of the images does not exist.
    """
    keys = {key: dataset[key] for key in (*_KEYS, *_COLUMN_KEYS)}
    root = dataset.data_dir or os.path.dirname(dataset.labels)
    kept = _kept.get((keys, root))
    if kept is not None:
        return kept
    started = time.time_ns()
    table, classes = read_labels(dataset)
    if "://" in root or not os.path.isdir(root):
        raise RunError(
            f"{root!r} is no folder; set --config.dataset.data_dir=FOLDER to the folder to which"
            f" the paths in {table.path!r} are relative"
        )
    classes = dataset.class_names or classes
    rows = Rows(table, root, tuple(classes), dataset.label_separator)
    _kept.put((keys, root), rows, [table.path, *rows.folders], started)
    return rows


class _Kept:
    """The last result, which is used again as long as some files and folders do not change."""

    def __init__(self):
        self._key, self._rows, self._paths, self._times = None, None, (), ()

    def put(self, key: Any, rows: "Rows", paths: Sequence[str], started: int) -> None:
        """Keep ``rows``, read from ``paths`` at ``started`` ns or later, if these are settled."""
        times = _times(paths)
        if all(changed < started - _SETTLED_NS for changed, _ in times):
            self._key, self._rows, self._paths, self._times = key, rows, paths, times

    def get(self, key: Any) -> "Rows | None":
        """Return the kept result for ``key``; another one is dropped, to save memory."""
        if self._key != key or self._times != _times(self._paths):
            self.__init__()
        return self._rows


_kept = _Kept()


def _times(paths: Iterable[str]) -> list[tuple[int, int]]:
    """Return time of the last change in ns and size of each path; 0 of one that does not exist."""
    times = []
    for path in paths:
        try:
            status = os.stat(path)
            times.append((status.st_mtime_ns, status.st_size))
        except (OSError, ValueError):
            times.append((0, 0))
    return times


def read_labels(dataset: ConfigDict) -> tuple[Table, tuple[str, ...]]:
    """Read the columns of ``config.dataset.labels`` that the configuration names or means.

    Returns:
      The table, and the classes if each has a column; see :func:`join_labels`.
    """
    if not dataset.labels:
        raise UsageError(
            "set --config.dataset.labels=FILE to the table with the columns image and label"
        )
    if "://" in dataset.labels:
        raise UsageError(f"a table of labels must be on a local disk, not {dataset.labels!r}")
    choose = partial(choose_columns, dataset=dataset, path=dataset.labels)
    table = read_table(dataset.labels, dataset.delimiter, choose)
    return join_labels(table, dataset) if dataset.label_separator else (table, ())


def has_splits(dataset: ConfigDict) -> bool:
    """Return whether the table ``config.dataset.labels`` has a column of splits."""
    return SPLIT in read_labels(dataset)[0].columns


class Rows:
    """The rows of a table, sorted into used, wrong and repeated ones.

    Attributes:
      table: the columns.
      root: folder to which paths are relative.
      count: number of rows.
      used: the rows in use.
      wrong: the rows that cannot be used.
      repeated: rows that repeat another one.
      folders: the folders of the images.
      class_names: names of the classes, in order.
      separator: between the names of the classes of an image; "" if it has one class.

    Args:
      table: the columns.
      root: folder to which paths are relative.
      class_names: the classes, in order; none for all names in the labels, sorted.
      separator: as above.
    """

    def __init__(self, table: Table, root: str, class_names: tuple[str, ...], separator: str):
        self.table, self.root = table, root
        self.separator, self._known = separator, frozenset(class_names)
        self.count = len(self.table) + len(self.table.uneven)
        self.used: list[int] = []
        self.wrong: list[WrongRow] = []
        self.repeated: list[WrongRow] = []
        self._sort()
        self.class_names = class_names or tuple(
            sorted({name for label in {*self.values(LABEL)} for name in self.classes(label)})
        )

    def classes(self, label: str) -> list[str]:
        """Return the names of the classes in a label."""
        return split_label(label, self.separator) if self.separator else [label]

    def values(self, purpose: str) -> list[str]:
        """Return the values of the used rows."""
        column = self.table.columns[purpose]
        return [column[row] for row in self.used]

    def _sort(self) -> None:
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
        elif self.separator and label.startswith(INVALID):
            reason = f"the label {label.removeprefix(INVALID)} for {truncate(image)!r}"
            self._reject(row, wrong_rows.NO_CLASSES, reason)
        elif not (self.separator or label.strip()) or "\0" in label:
            self._reject(row, wrong_rows.NO_LABEL, f"no label for {truncate(image)!r}")
        elif self._known and (unknown := {*self.classes(label)} - self._known):
            name = truncate(min(unknown))
            self._reject(row, wrong_rows.UNKNOWN_CLASS, f"unknown class {name!r}")
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
        exists, self.folders = existing_files(self.root, images)
        for row, image, found in zip(self.used, images, exists, strict=True):
            if not found:
                advice = "; separate folders by / instead of \\" * ("\\" in image)
                text = f"no file {truncate(image, 200)!r}{advice}"
                self._reject(row, wrong_rows.NO_FILE, text)
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


def existing_files(root: str, paths: Sequence[str]) -> tuple[list[bool], list[str]]:
    """Return whether each path below ``root``, or an absolute one, is a file, and their folders.

    Only regular files count. Folders of many of the files are listed, which is faster than testing
    each file.
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
    return exists, [os.path.join(root, folder) for folder in by_folder]


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
