"""Rows of findings on images, and their CSV file."""

import csv
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flax_resnet.files import make_atomically
from train.inspect.images import Images

UNREADABLE, SKIPPED = "unreadable", "skipped"
LEAK, CONFLICT, COPY = "leak", "label conflict", "copy"
NEAR = "near "  # before the three kinds above
LABEL, OUTLIER, BLANK = "label error", "outlier", "blank"
KINDS = (
    *(UNREADABLE, SKIPPED, LEAK, CONFLICT, COPY),
    *(NEAR + LEAK, NEAR + CONFLICT, NEAR + COPY),
    *(LABEL, OUTLIER, BLANK),
)


class FindingRow(NamedTuple):
    """A finding on a file.

    Attributes:
      file: the file, or the name of the record.
      split: its split.
      label: name of its class.
      kind: one of ``KINDS``.
      suggestion: what to do; for a label error the name of the more likely class.
      score: how sure the finding is, or how strong; comparable within a kind.
      other: the file it is a copy of, or the reason.
      image: index of the image; -1 without one.
    """

    file: str
    split: str
    label: str
    kind: str
    suggestion: str
    score: float
    other: str = ""
    image: int = -1


def image_row(
    images: Images, index: int, kind: str, suggestion: str, score: float, other: str = ""
) -> FindingRow:
    """Return the row of an image."""
    split, label = images.split_name(index), images.class_name(index)
    name, score = images.name(index), float(score)
    return FindingRow(name, split, label, kind, suggestion, score, other, int(index))


def copy_rows(
    images: Images, group: Sequence[int], prefix: str = "", scores: dict[int, float] | None = None
) -> list[FindingRow]:
    """Return the rows of images that are copies of one another.

    All images of the group are listed. Of a leak the copies in the first split, for training, are
    suggested for removal, so that earlier evaluations stay comparable.

    Args:
      images: all images.
      group: their indices.
      prefix: ``NEAR`` or nothing.
      scores: similarity by index; default: 1.
    """
    splits, labels = ({*array[list(group)].tolist()} for array in (images.split, images.label))
    kept = max(group, key=lambda index: (images.split[index], -index))
    partner = next(index for index in group if index != kept)
    kinds = [LEAK] * (len(splits) > 1) + [CONFLICT] * (len(labels) > 1)
    rows = []
    for kind in kinds or [COPY]:
        for index in group:
            other = images.name(partner if index == kept else kept)
            suggestion = "keep" if index == kept else "remove"
            if kind == CONFLICT:
                suggestion = "check the label"
            score = 1.0 if scores is None else scores.get(index, 1.0)
            rows.append(image_row(images, index, prefix + kind, suggestion, score, other))
    return rows


def count_kinds(rows: Sequence[FindingRow]) -> dict[str, int]:
    """Return the number of rows of each kind that occurs."""
    counts = Counter(row.kind for row in rows)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def sort_rows(rows: Sequence[FindingRow]) -> list[FindingRow]:
    """Return the rows by kind, then by score, the highest first; groups stay together."""
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), -np.float64(row.score)))


def write_csv(path: str, rows: Sequence[FindingRow]) -> None:
    """Write the rows to a CSV file."""

    def write(temporary: str) -> None:
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(FindingRow._fields[:-1])
            for row in rows:
                writer.writerow([*row[:5], f"{row.score:.6g}", row.other])

    make_atomically(path, write)
