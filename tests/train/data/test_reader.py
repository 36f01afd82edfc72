"""Corrupt records: replaced by the next one, logged, and limited in number."""

import os

import numpy as np
import pytest

from tests.train.pictures import encode, photograph
from train.data.corrupt_records import CorruptRecords
from train.data.reader import CorruptRecord, Reader
from train.data.source import DataSource
from train.runtime.errors import RunError

VALID = [encode(photograph(i, 6, 8), "PNG") for i in range(4)]


def make_source(*images):
    records = [{"image": image, "label": i} for i, image in enumerate(images)]
    names = [f"{i}.png" for i in range(len(images))]
    return DataSource("some", "train", tuple(names), records, names=names)


def test_the_next_record_replaces_a_corrupt_one():
    reader = Reader(make_source(VALID[0], b"bad", b"", VALID[3]), max_corrupt_fraction=0.5)
    pixels, label, corrupt = reader.read(1)
    np.testing.assert_array_equal(pixels, photograph(3, 6, 8))
    assert label == 3 and [record.index for record in corrupt] == [1, 2]
    assert reader.read(3)[1:] == (3, [])
    # The first record follows the last.
    reader = Reader(make_source(VALID[0], b"bad"), max_corrupt_fraction=0.5)
    assert reader.read(1)[1] == 0


def test_too_many_corrupt_records_raise_an_error_that_names_ten():
    reader = Reader(make_source(*[b"bad"] * 15, *VALID), max_corrupt_fraction=0.6)  # 12 of 19
    with pytest.raises(RunError, match=r"13 of the 19 images.*\(12\): 0\.png.*9\.png") as caught:
        reader.read(0)
    assert "10.png" not in str(caught.value) and "\n" not in str(caught.value)
    # Rounded up: one of five may be corrupt.
    assert Reader(make_source(b"bad", *VALID), max_corrupt_fraction=1e-3).max_corrupt == 1
    with pytest.raises(RunError, match=r"config\.loader\.max_corrupt_fraction"):
        Reader(make_source(b"bad", *VALID), max_corrupt_fraction=0.0).read(0)


def test_only_corrupt_records_raise_an_error_instead_of_an_endless_search():
    reader = Reader(make_source(b"bad", b"worse"), max_corrupt_fraction=1.0)
    with pytest.raises(RunError, match=r"none of the 2 images .*0\.png"):
        reader.read(0)


def test_corrupt_records_are_logged_once(tmp_path):
    reader = Reader(make_source(b"bad", VALID[1], b"worse"), max_corrupt_fraction=1)
    for _ in range(2):  # a run and its continuation
        warnings = []
        corrupt_records = CorruptRecords(tmp_path, warnings.append)
        for record in (0, 2, 0):
            corrupt_records.add(reader, reader.read(record)[2])
        assert len(warnings) == 2
        assert warnings[0].startswith("skipping corrupt train image 0.png: 3 bytes")
    lines = (tmp_path / "corrupt_records.txt").read_text().splitlines()
    assert [line.split("\t")[:3] for line in lines] == [
        ["train", "0", "0.png"],
        ["train", "2", "2.png"],
    ]


def test_oddities_are_warned_of_once_with_the_first_image():
    dark = encode(np.full((6, 8), 4000, np.uint16), "PNG")
    reader = Reader(make_source(VALID[0], dark, dark), max_corrupt_fraction=0)
    warnings = []
    corrupt_records = CorruptRecords(warn=warnings.append)
    for record in (0, 1, 2, 1):
        corrupt_records.add(reader, reader.read(record)[2])
    (warning,) = warnings
    assert warning.startswith("1.png: 16-bit values reach only 4,000 of 65,535")


def test_warnings_name_ten_corrupt_records_and_then_the_file(tmp_path):
    reader = Reader(make_source(*[b"bad"] * 13, *VALID), max_corrupt_fraction=1)
    warnings = []
    CorruptRecords(tmp_path, warnings.append, process=2).add(reader, reader.read(0)[2])
    assert len(warnings) == 11 and warnings[-1].endswith("listed in corrupt_records.2.txt")
    assert len((tmp_path / "corrupt_records.2.txt").read_text().splitlines()) == 13


def test_any_list_of_corrupt_records_of_an_earlier_session_is_continued(tmp_path):
    path = tmp_path / "corrupt_records.txt"
    path.write_bytes(b"\xff\xfe\0\n" * 3)
    reader = Reader(make_source(VALID[0], b"bad"), max_corrupt_fraction=1)
    record = CorruptRecord(1, "record 1", "not an image")
    for _ in range(2):  # the second finds the line of the first
        CorruptRecords(str(tmp_path)).add(reader, [record])
    assert path.read_bytes() == b"\xff\xfe\0\n" * 3 + b"train\t1\trecord 1\tnot an image\n"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match=r"corrupt_records\.txt: Not a regular file; move it"):
        CorruptRecords(str(tmp_path))
