"""Tables of images with any number of classes: names in a field, or a column per class."""

import csv

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.train.data.labeled import opened
from tests.train.pictures import encode, photograph
from train.data.findings import inspect_data
from train.data.wrong_rows import NO_CLASSES, UNKNOWN_CLASS
from train.runtime.errors import UsageError

LABELS = {"0.png": "dog|cat", "1.png": "cat", "2.png": "", "3.png": " cat | dog", "4.png": "fox"}
CLASSES = ("cat", "dog", "fox")
MATRIX = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(LABELS):
        (tmp_path / name).write_bytes(encode(photograph(number, 12, 16), "PNG"))
    return tmp_path


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def from_table(table, **keys):
    keys = {"label_separator": "|"} | keys
    return opened("table", "", "all", labels=table, **keys)


def targets(source):
    return source.targets(source.all_labels()).tolist()


def test_names_in_a_field_and_columns_of_classes_are_the_same(folder):
    named = from_table(write(folder / "names.csv", ("image", "labels"), LABELS.items()))
    rows = [(name, *row) for name, row in zip(LABELS, MATRIX, strict=True)]
    header = ("image", *CLASSES)
    columns = from_table(write(folder / "columns.csv", header, rows))
    marks = {0: "False", 1: "1.0"}
    texts = [(name, *(marks[v] for v in row)) for name, *row in rows]
    written = from_table(write(folder / "texts.csv", header, texts))
    table = pyarrow.table(
        {"image": [*LABELS]} | dict(zip(CLASSES, np.array(MATRIX, bool).T, strict=True))
    )
    pyarrow.parquet.write_table(table, folder / "columns.parquet")
    parquet = from_table(str(folder / "columns.parquet"))
    for source in (named, columns, written, parquet):
        assert (source.class_names, targets(source)) == (CLASSES, MATRIX)
        assert not source.table.wrong and source.fingerprint == named.fingerprint


def test_chosen_columns_classes_and_separators(folder):
    rows = [(name, 9, *row) for name, row in zip(LABELS, MATRIX, strict=True)]
    table = write(folder / "t.csv", ("image", "age", *CLASSES), rows)
    source = from_table(table, label_key="fox,cat")
    assert source.class_names == ("fox", "cat")
    assert targets(source) == [[row[2], row[0]] for row in MATRIX]
    with pytest.raises(UsageError, match=r"the column 'age' is no class of zeros and ones.*'9'"):
        from_table(table)
    with pytest.raises(UsageError, match="has no column 'bear'"):
        from_table(table, label_key="cat,bear")
    names = [(name, text.replace("|", ";")) for name, text in LABELS.items()]
    table = write(folder / "n.csv", ("image", "tags"), names)
    source = from_table(table, label_key="tags", label_separator=";", delimiter=",")
    assert targets(source) == MATRIX
    source = from_table(table, label_key="tags", label_separator=";", class_names=("dog", "cat"))
    assert source.class_names == ("dog", "cat")
    assert [row.kind for row in source.table.wrong] == [UNKNOWN_CLASS]


def test_wrong_labels_are_named_by_line(folder):
    rows = [(name, *row) for name, row in zip(LABELS, MATRIX, strict=True)]
    rows[1] = ("1.png", "-1", 0, 1)
    rows[3] = ("3.png", 1, "", 0)
    source = from_table(write(folder / "t.csv", ("image", *CLASSES), rows))
    assert [(row.line, row.kind) for row in source.table.wrong] == [
        (3, NO_CLASSES),
        (5, NO_CLASSES),
    ]
    assert "'-1' in the column 'cat' for '1.png'" in source.table.wrong[0].text
    assert [source.names[i] for i in range(3)] == ["0.png", "2.png", "4.png"]
    rows = [("0.png", "a||b"), ("1.png", "a|b"), ("2.png", "b|a|b"), ("1.png", "b|a")]
    source = from_table(write(folder / "n.csv", ("image", "label"), rows))
    assert [row.line for row in source.table.wrong] == [2] and len(source.table.repeated) == 1
    assert targets(source) == [[1, 1], [1, 1]]


def test_a_class_with_the_separator_in_its_name_is_refused(folder):
    table = write(folder / "t.csv", ("image", "a|b", "c"), [(name, 1, 0) for name in LABELS])
    with pytest.raises(UsageError, match=r"'a\|b' has the separator.*label_separator"):
        from_table(table)


def test_without_a_separator_a_field_is_one_class(folder):
    rows = [("0.png", "a|b"), ("1.png", "c")]
    source = from_table(write(folder / "t.csv", ("image", "label"), rows), label_separator="")
    assert source.class_names == ("a|b", "c") and source.label_sets is None
    found = {finding.kind: finding for finding in inspect_data(source, source)}
    assert found["joined classes"].is_warning
    assert (
        "labels such as 'a|b' are classes of their own (1 in all)" in found["joined classes"].text
    )
    plain = [("0.png", "ab"), ("1.png", "c|")]
    source = from_table(write(folder / "t.csv", ("image", "label"), plain), label_separator="")
    assert "joined classes" not in {finding.kind for finding in inspect_data(source, source)}


@pytest.mark.parametrize(("labels", "mark"), [("cat,dog", "','"), ("cat ; dog", "';'"), ("x", "")])
def test_labels_that_another_separator_would_divide_are_a_warning(folder, labels, mark):
    rows = [("0.png", labels), ("1.png", "cat"), ("2.png", "dog"), ("3.png", "")]
    source = from_table(write(folder / "t.csv", ("image", "labels"), rows))
    found = [f for f in inspect_data(source, source) if f.kind == "single classes"]
    assert [f"label_separator={mark}" in finding.text for finding in found] == [True] * bool(mark)


def test_columns_of_classes_without_the_task_and_labels_without_a_class_are_explained(folder):
    columns = write(folder / "t.csv", ("image", "a", "b"), [(name, 1, 0) for name in LABELS])
    with pytest.raises(
        UsageError, match="task='multi_label' for a column of zeros and ones per class"
    ):
        from_table(columns, label_separator="")
    table = write(folder / "e.csv", ("image", "labels"), [(name, "") for name in LABELS])
    with pytest.raises(UsageError, match="has no image with a class; training needs two or more"):
        from_table(table)
