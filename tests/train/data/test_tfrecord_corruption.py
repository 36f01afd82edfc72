"""Error messages for corrupt, missing and modified record files."""

import os

import pytest

from flax_resnet.decoding import ImageDecodeError
from tests.train.data.tfrecords import framed, opened, own_cache, two_splits, write
from train.runtime.errors import RunError

cache = pytest.fixture(own_cache, autouse=True)
place = pytest.fixture(two_splits)


def corrupt_length(data):
    return data[:3] + b"\x07" + data[4:]


def cut(data):
    return data[:-5]


def cut_in_header(data):
    return data + framed(b"x")[:7]


def one_too_many(data):
    return data + framed(b"x")


def huge(data):
    return data[:7] + b"\x7f" + data[8:]


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (corrupt_length, "is corrupt at record 0"),
        (huge, "is corrupt at record 0"),
        (cut, "ends in the middle of record 5"),
        (cut_in_header, "ends in the middle of record"),
        (one_too_many, "has 7 records but dataset_info.json lists 6"),
        (lambda data: b"", "has 0 records but"),
        (lambda data: os.urandom(300), "is corrupt at record 0"),
    ],
)
def test_the_message_names_a_corrupt_file_in_one_line(place, corrupt, message):
    shard = next(place.glob("*train*-00002-*"))
    shard.write_bytes(corrupt(shard.read_bytes()))
    with pytest.raises(RunError, match=message) as caught:
        opened(place)
    message = str(caught.value)
    assert str(shard) in message and "copy it again" in message and "\n" not in message
    assert len(opened(place, "validation")) == 6


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_the_message_names_a_missing_file_in_one_line(tmp_path, file_format):
    place = write(tmp_path, {"train": [4, 6]}, file_format=file_format)
    shard = next(place.glob("*train*-00001-*"))
    shard.unlink()
    with pytest.raises(RunError) as caught:
        opened(place)
    assert shard.name in str(caught.value) and "copy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corrupt_array_record_file_is_reported_in_one_line(tmp_path):
    place = write(tmp_path, {"train": [4]}, file_format="array_record")
    (shard,) = place.glob("*train*")
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match=r"is corrupt \(0 of 4 records\); copy it again") as caught:
        opened(place)
    assert "\n" not in str(caught.value)


def test_a_file_modified_while_in_use_raises_an_error(place):
    source = opened(place)
    shard = next(place.glob("*train*-00000-*"))
    shard.write_bytes(b"x" + shard.read_bytes())
    with pytest.raises(RunError, match="changed while in use"):
        source[0]
    shard.unlink()
    source = opened(place, "validation")
    next(place.glob("*valid*-00001-*")).unlink()
    with pytest.raises(RunError, match="is missing"):
        source[5]


def test_a_record_without_an_image_is_named(place):
    shard = next(place.glob("*train*-00000-*"))
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"\x05image", b"\x05imagf", 1))
    source = opened(place)
    with pytest.raises(ImageDecodeError, match=r"record 0 of 'train' in .* is corrupt"):
        source[0]
    assert source[1][1] == 1
