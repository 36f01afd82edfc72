"""The part of the report on confusions: what is stored, read, shown and refused."""

import json

import numpy as np
import pytest

from train.reporting.confusions import Confusions, clustered_order, matrix_cells
from train.reporting.report import confusion_section

EVIL = '<img src=x onerror="1">&'


def part_of(matrix, names):
    """Return the fields of a part as they are read from JSON."""
    matrix = np.asarray(matrix)
    totals, cells = matrix.sum(axis=1).tolist(), matrix_cells(matrix)
    found = Confusions(names, totals, cells, clustered_order(totals, cells))
    fields = dict.fromkeys(confusion_section.FIELDS) | confusion_section.build(found)
    if len(names) <= 20:
        fields["confusion"] = matrix.tolist()
    classes = [{"name": n, "examples": t} for n, t in zip(names, totals, strict=True)]
    return json.loads(json.dumps(fields)) | {"outputs": len(names), "classes": classes}, found


@pytest.mark.parametrize("size", (2, 20, 21, 300))
def test_what_is_stored_is_read_again(size):
    matrix = np.random.default_rng(0).poisson(0.2, (size, size))
    part, found = part_of(matrix, [f"class {k}" for k in range(size)])
    confusion_section.check(part)
    read = confusion_section.read(part)
    assert [*read.totals] == [*found.totals] and [*read.cells] == [*found.cells]
    assert [*read.order] == ([*found.order] if size > 20 else [*range(size)])


def test_many_classes_show_the_worst_pairs_before_the_matrix():
    matrix = np.eye(100, dtype=int)
    matrix[7, 8], matrix[9] = 3, 0
    page = "".join(confusion_section.section(part_of(matrix, [EVIL, *"a" * 99])[0], "k"))
    assert page.index("Most frequent confusions") < page.index("Confusion matrix")
    assert "75.0 %" in page and "classes without images (1)" in page and "<img" not in page
    few = np.array([[5, 1, 0], [0, 3, 0], [0, 0, 2]])
    page = "".join(confusion_section.section(part_of(few, "abc")[0], "k"))
    assert page.index("Confusion matrix") < page.index("Most frequent confusions")
    page = "".join(confusion_section.section(part_of(few[:2, :2], "ab")[0], "k"))
    assert "Most frequent confusions" not in page


@pytest.mark.parametrize(
    "damage",
    (
        {"confusion_cells": [1, 2]},
        {"confusion_cells": [30, 0, 1]},
        {"confusion_cells": [0, 30, 1]},
        {"confusion_order": [0] * 30},
        {"confusion_order": [0, 1]},
        {"outputs": 29},
        {"confusion": [[1, 2], [3]]},
    ),
)
def test_damaged_matrices_are_refused(damage):
    part, _ = part_of(np.eye(30, dtype=int), ["a"] * 30)
    confusion_section.check(part)
    with pytest.raises(ValueError, match="do not fit"):
        confusion_section.check(part | damage)
