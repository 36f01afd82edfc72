"""Rows of a table of labels that cannot be used."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from flax_resnet.text import one_line
from train.data.skipped import MAX_EXAMPLES, Finding
from train.runtime.errors import RunError
from train.runtime.formatting import join_names

MAX_NAMED = 10  # wrong rows in an error

# Kinds of wrong rows.
FIELDS, NO_IMAGE, NO_FILE, NO_LABEL = "fields", "no image", "no file", "no label"
NO_CLASSES = "no classes"
UNKNOWN_CLASS, NO_SPLIT, NO_GROUP, WEIGHT = "unknown class", "no split", "no group", "weight"
CONFLICT = "conflict"
REPEATED = "repeated"  # not wrong: an equal row is used

_DESCRIPTIONS = {
    FIELDS: ("row has another number of fields", "rows have another number of fields"),
    NO_IMAGE: ("row has no image", "rows have no image"),
    NO_FILE: ("row has an image that is no file", "rows have images that are no files"),
    NO_LABEL: ("row has no label", "rows have no label"),
    NO_CLASSES: (
        "row has a label that is neither classes nor zeros and ones",
        "rows have labels that are neither classes nor zeros and ones",
    ),
    UNKNOWN_CLASS: ("row has an unknown class", "rows have unknown classes"),
    NO_SPLIT: ("row has no split", "rows have no split"),
    NO_GROUP: ("row has no group", "rows have no group"),
    WEIGHT: ("row has no positive number as its weight", "rows have no positive number as weight"),
    CONFLICT: (
        "row contradicts another one of the same image, which is not used",
        "rows contradict others of the same images, which are not used",
    ),
    REPEATED: ("row repeats another one", "rows repeat others"),
}


class WrongRow(NamedTuple):
    """A row that is not used.

    Attributes:
      line: its number in the table.
      kind: such as ``NO_FILE``.
      text: line and reason.
    """

    line: int
    kind: str
    text: str


class TableRows(NamedTuple):
    """What a table of labels has besides the records.

    Attributes:
      path: the file.
      count: number of rows.
      wrong: rows that cannot be used.
      repeated: rows that repeat another one, which is used.
      other_splits: numbers of usable rows by split, of the splits that this one is not part of.
    """

    path: str
    count: int
    wrong: Sequence[WrongRow]
    repeated: Sequence[WrongRow]
    other_splits: Mapping[str, int] = MappingProxyType({})

    def check(self, max_fraction: float) -> None:
        """Raise RunError if more rows are wrong than a fraction of all, rounded up."""
        limit = math.ceil(max_fraction * self.count)
        if len(self.wrong) <= limit:
            return
        more = f"; and {len(self.wrong) - MAX_NAMED:,} more" * (len(self.wrong) > MAX_NAMED)
        named = "; ".join(one_line(row.text) for row in self.wrong[:MAX_NAMED])
        raise RunError(
            f"{len(self.wrong):,} of the {self.count:,} rows of {self.path!r} are wrong, more than"
            f" config.loader.max_corrupt_fraction permits ({limit:,}): {named}{more}"
        )

    def findings(self) -> list[Finding]:
        """Return a finding for each kind of wrong row, and for repeated ones."""
        by_kind: dict[str, list[str]] = {}
        for row in (*self.wrong, *self.repeated):
            by_kind.setdefault(row.kind, []).append(row.text)
        return [self._finding(kind, by_kind[kind]) for kind in _DESCRIPTIONS if kind in by_kind]

    def _finding(self, kind: str, texts: Sequence[str]) -> Finding:
        one, several = _DESCRIPTIONS[kind]
        text = f"{self.path}: {len(texts):,} {one if len(texts) == 1 else several}: "
        text += join_names(texts, MAX_EXAMPLES)
        examples = tuple(texts[:MAX_EXAMPLES])
        return Finding(kind, len(texts), examples, text, is_warning=kind != REPEATED)
