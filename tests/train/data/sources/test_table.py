"""Tables of labels: columns, wrong rows, splits and groups."""

import csv
import io
import os
import time

import numpy as np
import pytest

from tests.train.data.labeled import opened
from tests.train.pictures import encode, photograph
from train.config.loading import default_config
from train.data.findings import inspect_data
from train.data.loader import DataLoader
from train.data.wrong_rows import CONFLICT, FIELDS, NO_FILE, NO_IMAGE, NO_LABEL, UNKNOWN_CLASS
from train.runtime.errors import RunError, UsageError

IMAGE = encode(photograph(0, 12, 16), "PNG")
NAMES = [f"{name}{i}.png" for name in "ab" for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    """A folder of small images a0.png … b5.png."""
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(encode(photograph(number, 12, 16), "PNG"))
    return tmp_path


def write(path, rows, header=("image", "label"), **options):
    """Write a table with Python's own csv module."""
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows([header, *rows])
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return str(path)


def from_table(table, split="all", **keys):
    return opened("table", keys.pop("data_dir", ""), split, labels=str(table), **keys)


def content(source):
    """Return ``{file: class}``."""
    labels = source.all_labels()
    assert [source[i][1] for i in range(len(source))] == labels.tolist()
    return {source.names[i]: source.class_names[labels[i]] for i in range(len(source))}


LABELED = {name: name[0] for name in NAMES}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [("image", "label"), ("File_Name", "Class"), ("path", "target")])
def test_columns_and_delimiters_are_detected(delimiter, header, folder):
    table = write(folder / "t.csv", LABELED.items(), header, delimiter=delimiter)
    assert content(from_table(table)) == LABELED


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_quotes_spaces_and_line_ends(start, end, folder):
    (folder / "ein Bild, groß.png").write_bytes(IMAGE)
    lines = ["note, image, label", '"two, or ""three""", "ein Bild, groß.png", Äpfel & Birnen']
    lines += ["", f"=1+1, {folder}/a1.png, @SUM(A1)", '"two\nlines", a2.png, Äpfel & Birnen']
    (folder / "t.csv").write_bytes(start + end.join(lines).encode())
    assert content(from_table(folder / "t.csv")) == {
        "ein Bild, groß.png": "Äpfel & Birnen",
        f"{folder}/a1.png": "@SUM(A1)",
        "a2.png": "Äpfel & Birnen",
    }


def test_parquet_is_recognized_by_its_content(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = pyarrow.array([None, *(n[0] for n in NAMES[1:])]).dictionary_encode()
    data = {"image": NAMES, "number": range(len(NAMES)), "label": labels, "bytes": [b"\xff"] * 12}
    parquet.write_table(pyarrow.table(data), folder / "labels.csv")
    source = from_table(folder / "labels.csv")
    assert content(source) == {name: name[0] for name in NAMES[1:]}
    assert [row.text for row in source.table.wrong] == ["row 1: no label for 'a0.png'"]
    source = from_table(folder / "labels.csv", label_key="number")
    assert content(source) == {name: str(number) for number, name in enumerate(NAMES)}
    with pytest.raises(UsageError, match=r"'bytes'.*values of type binary"):
        from_table(folder / "labels.csv", label_key="bytes")


def test_parquet_without_pyarrow_is_an_error_with_the_command(folder, monkeypatch):
    (folder / "t.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(RunError, match=r"cannot read the table"):
        from_table(folder / "t.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(RunError, match=r"pip install 'flax-resnet\[hf\]'"):
        from_table(folder / "t.parquet")


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        ("x;y\na;b", {}, "no column of images among 'x', 'y'; .*choose with.*image_key=COLUMN"),
        ("image,path,label\n", {}, "several columns that may be images among 'image', 'path'"),
        ("image,label\n", {"label_key": "Label"}, "no column 'Label' .*it has 'image', 'label'"),
        ("image,image,label\na,b,c", {}, "several columns.*give every column a name of its own"),
        ("a0.png,a\nb1.png,b", {}, "the first line must name the columns"),
        ("image|label\na0.png|a", {}, "image_key=COLUMN, or set .*delimiter=CHARACTER"),
        ("image;n,label\na;b,c", {}, "may be separated by comma or semicolon.*delimiter="),
        ("image,label;x,image;label\n", {}, "may be separated by comma or semicolon"),
        ("image label\na b", {}, "no column of images among 'image label'"),
        ("image|label\na|b", {"delimiter": "||"}, "delimiter must be one character"),
        ("image,label\n", {}, "no rows that can be used"),
        ("image,label\na0.png,a\na1.png,a\n", {}, "one class, 'a'"),
        ("image,label,split\na0.png,a,x\nb1.png,b,y\n", {}, "no split 'all'; it has x, y"),
        ("image,label\na0.png,a\nb1.png,b\n", {"split": "train[:5]"}, "TFDS's split syntax"),
        ("image,label\na0.png,a\nb1.png,b\n", {"class_names": ("a", "a")}, "a name twice"),
    ],
)
def test_errors_of_usage_explain_what_to_do(text, keys, message, folder):
    (folder / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        from_table(folder / "t.csv", **keys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        ("image,label\na,b\nü,c".encode("latin-1"), "line 3 of .* is not UTF-8"),
        ("image,label\n".encode("utf-16"), "is UTF-16"),
        (b'image,label\na.png,a\n"b.png,b\nc.png,c\n', "line 3: .*quotation mark"),
        (b'image,label\n"a"b,c\n', "line 2: .*quotation mark"),
        (b"image,label\n" + b"a" * 200_000 + b",b\n", "line 2: field larger than field limit"),
        (b"image,label," + b"," * 20_000, "20,003 columns, more than 10,000"),
    ],
)
def test_unreadable_tables_are_errors_with_the_line(content, message, folder):
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(RunError, match=message) as error:
        from_table(folder / "t.csv")
    assert len(str(error.value)) < 1000


def test_a_table_that_is_no_regular_file_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    for name in ("t.csv", "none.csv", "."):
        with pytest.raises(RunError, match="cannot read the table"):
            from_table(tmp_path / name)
    with pytest.raises(UsageError, match=r"dataset\.labels=FILE"):
        from_table("")


def test_wrong_rows_are_named_by_line_and_limited(folder):
    (folder / "a.fifo").mkdir()
    os.mkfifo(folder / "pipe.png")
    lines = [
        "image,label",
        *(f"{name},{name[0]}" for name in NAMES[:10]),
        "none.png,a",  # line 12
        "pipe.png,a",
        "a0.png",
        "b4.png,b,extra",
        ",b",
        "b4.png,",
        "b5.png,  ",
        "a\0.png,a",
        "b5.png,c",  # line 20
        "a1.png,b",
        "./a2.png,a",
        f"{folder}/b0.png,b",
        "x" * 300 + ".png,a",
        "x" * 50_000 + "/y.png,a",
    ]
    (folder / "t.csv").write_text("\n".join(lines))
    source = from_table(folder / "t.csv", class_names=("b", "a"))
    assert source.class_names == ("b", "a")
    kinds = {row.line: row.kind for row in source.table.wrong}
    assert kinds == {
        **{12: NO_FILE, 13: NO_FILE, 24: NO_FILE, 25: NO_FILE, 14: FIELDS, 15: FIELDS},
        **{16: NO_IMAGE, 19: NO_IMAGE, 17: NO_LABEL, 18: NO_LABEL, 20: UNKNOWN_CLASS, 21: CONFLICT},
    }
    assert [row.line for row in source.table.repeated] == [22, 23]
    texts = {row.line: row.text for row in source.table.wrong}
    assert texts[12] == "line 12: no file 'none.png'"
    assert texts[21] == "line 21: 'a1.png' has the label 'b', but 'a' in line 3"
    assert content(source) == {name: name[0] for name in NAMES[:10] if name != "a1.png"}

    findings = {finding.kind: finding for finding in inspect_data(source, source)}
    assert findings[NO_FILE].count == 4 and findings[NO_FILE].is_warning
    assert "line 12" in findings[NO_FILE].text and not findings["repeated"].is_warning

    config = default_config()
    config.dataset.update(name="table", labels=str(folder / "t.csv"), class_names=("b", "a"))
    with pytest.raises(
        RunError, match=r"12 of the 24 rows .* permits .1.: line 12: no file"
    ) as error:
        DataLoader(config, "train", training=True)
    assert str(error.value).endswith("; and 2 more")
    config.loader.max_corrupt_fraction = 0.5
    assert len(DataLoader(config, "all", training=False).load()) == 9


def test_rows_of_one_image_may_be_in_both_splits_which_is_a_leak(folder):
    rows = [(name, name[0], "train") for name in NAMES] + [("a0.png", "a", "val")] * 2
    rows += [("b0.png", "b", "val")]
    table = write(folder / "t.csv", rows, ("image", "label", "split"))
    train, val = (from_table(table, split) for split in ("train", "test"))
    assert (len(train), len(val), len(val.table.repeated)) == (12, 2, 1)
    assert "2 of 2" in {f.kind: f for f in inspect_data(train, val)}["leak"].text


def test_a_split_of_wrong_rows_is_not_replaced_by_a_held_out_part(folder):
    rows = [(name, name[0], "train") for name in NAMES] + [("none.png", "a", "val")]
    table = write(folder / "t.csv", rows, ("image", "label", "split"))
    assert len(from_table(table, "train")) == 12
    with pytest.raises(UsageError, match=r"split 'val' .* has no images"):
        from_table(table, "val")


def test_split_group_and_weight_columns(folder):
    rows = [(n, n[0], "val" if n[1] < "2" else "train", f"p{n[1]}", 1 + int(n[1])) for n in NAMES]
    header = ("image", "label", "split", "group", "weight")
    table = write(folder / "t.csv", rows, header)
    train, val = (from_table(table, split) for split in ("train", "val"))
    assert content(val) == {name: name[0] for name in ("a0.png", "a1.png", "b0.png", "b1.png")}
    assert len(train) == 8 and not {*train.names} & {*val.names}
    assert train.groups == tuple(f"p{name[1]}" for name in train.names)
    np.testing.assert_array_equal(train.weights, [1 + int(name[1]) for name in train.names])
    keys = {"split_key": "none", "group_key": "none", "weight_key": "none"}
    plain = from_table(table, **keys)
    assert (len(plain), plain.groups, plain.weights) == (12, None, None)
    shared = (
        from_table(table, "train", group_key="label"),
        from_table(table, "val", group_key="label"),
    )
    assert {f.kind: f.count for f in inspect_data(*shared)} == {"shared groups": 2}


def test_paths_of_windows_are_wrong_with_the_way_out(folder):
    table = write(folder / "t.csv", [*LABELED.items(), (r"sub\a0.png", "a")])
    (row,) = from_table(table).table.wrong
    assert row.text.endswith(r"no file 'sub\\a0.png'; separate folders by / instead of \ ".strip())


def test_splits_that_are_not_used_are_a_note(folder):
    split = dict(zip("012345", ("train", "train", "train", "val", "test", "dev"), strict=True))
    table = write(
        folder / "t.csv", [(n, n[0], split[n[1]]) for n in NAMES], ("image", "label", "split")
    )
    train, val = (from_table(table, name) for name in ("train", "val"))
    (note,) = [f for f in inspect_data(train, val) if f.kind == "unused splits"]
    assert note.text == "2 splits of the table are not used: dev (2), test (2)"
    assert not note.is_warning
    folds = [from_table(table, name, fold="1/3") for name in ("train", "held_out")]
    (note,) = [f for f in inspect_data(*folds) if f.kind == "unused splits"]
    assert note.count == 3


def test_classes_that_only_one_split_has_are_a_warning(folder):
    rows = [(name, "new" if name in ("a0.png", "a1.png") else name[0]) for name in NAMES]
    rows = [(name, label, "train" if label == "new" else "val") for name, label in rows]
    rows += [("b0.png", "b", "train")]
    table = write(folder / "t.csv", rows, ("image", "label", "split"))
    names = ("a", "b", "new", "none at all")
    train, val = (from_table(table, split, class_names=names) for split in ("train", "val"))
    texts = [f.text for f in inspect_data(train, val) if f.kind == "missing classes"]
    assert texts == [
        "2 of 4 classes have no image in 'train': a, none at all; the network cannot learn them",
        "2 of 4 classes have no image in 'val': new, none at all; nothing is known of its answers"
        " for them",
    ]


def test_a_class_of_held_out_groups_only_is_a_warning(folder):
    table = write(folder / "t.csv", [(n, n[0], n[0]) for n in NAMES], ("image", "label", "group"))
    sources = (from_table(table, split, val_fraction=0.5) for split in ("train", "val"))
    missing = [f.count for f in inspect_data(*sources) if f.kind == "missing classes"]
    assert missing == [1, 1]


def test_labels_that_mark_missing_values_are_a_warning(folder):
    labels = {"a0.png": "nan", "a1.png": "NaN", "b0.png": "none"}
    source = from_table(write(folder / "t.csv", (LABELED | labels).items()))
    findings = {f.kind: f for f in inspect_data(source, source)}
    assert findings["missing labels"].text == (
        "2 classes have the name of a missing value: 'NaN', 'nan'; leave these labels empty if they"
        " are unknown"
    )


@pytest.mark.parametrize("weight", ["", "-1", "0", "nan", "inf", "1e-60", "1e60", "1,5", "x"])
def test_weights_that_are_not_positive_numbers_are_wrong_rows(weight, folder):
    rows = [(name, name[0], weight if name == "a0.png" else "0.5") for name in NAMES]
    source = from_table(write(folder / "t.csv", rows, ("image", "label", "weight")))
    assert [row.line for row in source.table.wrong] == [2] and len(source) == 11


def test_without_splits_the_same_images_are_held_out_as_of_a_folder(folder):
    table = write(folder / "t.csv", LABELED.items())
    for name in NAMES:
        path = folder / "classes" / name[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)
    train, held = (from_table(table, split, val_fraction=0.34) for split in ("train", "val"))
    assert not {*train.names} & {*held.names} and len(train) + len(held) == 12
    assert np.bincount(held.all_labels()).tolist() == [2, 2]
    of_folder = opened("folder", folder / "classes", "val", val_fraction=0.34)
    assert np.bincount(of_folder.all_labels()).tolist() == [2, 2]


def test_whole_groups_are_held_out(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"patient{rng.integers(40):02}_{i}.png" for i in range(400)]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    rows = [(name, "ab"[rng.random() < 0.3], name[:9]) for name in names]
    table = write(tmp_path / "t.csv", rows, ("image", "label", "group"))
    for keys in ({}, {"group_pattern": r"^(patient\d+)_"}):
        train, held = (from_table(table, split, **keys) for split in ("train", "val"))
        assert not {*train.groups} & {*held.groups}
        assert len(train) + len(held) == 400
        counts = np.bincount(held.all_labels()), np.bincount(train.all_labels())
        shares = counts[0] / sum(counts)
        assert (abs(shares - 0.2) < 0.06).all(), shares
    with pytest.raises(UsageError, match=r"finds no group in 1 of 400 names"):
        from_table(table, group_pattern=f"^(?!{names[3]})(patient)")
    with pytest.raises(UsageError, match=r"one pair of parentheses.*it has 0"):
        from_table(table, group_pattern="patient")
    with pytest.raises(UsageError, match="is not a regular expression"):
        from_table(table, group_pattern="(patient")
    with pytest.raises(UsageError, match="exclude each other"):
        from_table(table, group_pattern="(patient)", group_key="group")


def test_a_table_of_many_rows_is_read_in_seconds(tmp_path):
    for i in range(100):
        (tmp_path / f"{i}.png").write_bytes(b"")
    rows = [(f"{'./' * (i // 100 % 20)}{i % 100}.png", i % 100 % 7) for i in range(20_000)]
    table = write(tmp_path / "t.csv", rows)
    start = time.process_time()
    assert len(from_table(table)) == 100
    assert time.process_time() - start < 5


def test_rows_are_read_again_after_a_change(folder):
    table = folder / "t.csv"
    write(table, LABELED.items())
    old = time.time() - 100
    for path in (table, folder):
        os.utime(path, (old, old))
    first, second = from_table(table, "train"), from_table(table, "val")
    assert first.table.wrong is second.table.wrong
    (folder / "a0.png").unlink()
    assert from_table(table).table.wrong[0].text == "line 2: no file 'a0.png'"
    write(table, list(LABELED.items())[1:])
    assert not from_table(table).table.wrong


def test_keys_of_tables_have_no_meaning_for_other_sources(tmp_path):
    for key, value in (("labels", "t.csv"), ("split_key", "x"), ("class_names", ("a", "b"))):
        with pytest.raises(UsageError, match=rf"{key}=.*only for config.dataset.name='table'"):
            opened("folder", tmp_path, **{key: value})
