"""Files of records that are damaged, missing or changed: what is told of them."""

import os

import pytest

from flax_resnet.decoding import ImageDecodeError
from tests.train.data.tfrecords import framed, opened, own_cache, two_splits, write
from train.runtime.errors import RunError

cache = pytest.fixture(own_cache, autouse=True)
place = pytest.fixture(two_splits)


def damage_length(data):
    return data[:3] + b"\x07" + data[4:]


def cut(data):
    return data[:-5]


def cut_in_header(data):
    return data + framed(b"x")[:7]


def one_more(data):
    return data + framed(b"x")


def huge(data):
    return data[:7] + b"\x7f" + data[8:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_length, "is damaged at record 0"),
        (huge, "is damaged at record 0"),
        (cut, "ends in the middle of record 5"),
        (cut_in_header, "ends in the middle of record"),
        (one_more, "holds 7 records where dataset_info.json counts 6"),
        (lambda data: b"", "holds 0 records where"),
        (lambda data: os.urandom(300), "is damaged at record 0"),
    ],
)
def test_damaged_files_are_named_in_one_line(place, damage, message):
    shard = next(place.glob("*train*-00002-*"))
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(RunError, match=message) as caught:
        opened(place)
    told = str(caught.value)
    assert str(shard) in told and "copy it anew" in told and "\n" not in told
    assert len(opened(place, "validation")) == 6


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_missing_files_are_named_in_one_line(tmp_path, file_format):
    place = write(tmp_path, {"train": [4, 6]}, file_format=file_format)
    shard = next(place.glob("*train*-00001-*"))
    shard.unlink()
    with pytest.raises(RunError) as caught:
        opened(place)
    assert shard.name in str(caught.value) and "copy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_array_record_file_is_told_in_one_line(tmp_path):
    place = write(tmp_path, {"train": [4]}, file_format="array_record")
    (shard,) = place.glob("*train*")
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match=r"is damaged \(0 of 4 records\); copy it anew") as caught:
        opened(place)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_while_it_is_in_use_is_noticed(place):
    source = opened(place)
    shard = next(place.glob("*train*-00000-*"))
    shard.write_bytes(b"x" + shard.read_bytes())
    with pytest.raises(RunError, match="changed while it was in use"):
        source[0]
    shard.unlink()
    source = opened(place, "validation")
    next(place.glob("*valid*-00001-*")).unlink()
    with pytest.raises(RunError, match="is missing"):
        source[5]


def test_a_record_that_is_no_example_is_named(place):
    shard = next(place.glob("*train*-00000-*"))
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"\x05image", b"\x05imagf", 1))
    source = opened(place)
    with pytest.raises(ImageDecodeError, match=r"record 0 of 'train' in .* is damaged"):
        source[0]
    assert source[1][1] == 1
