"""Prepared data sets of either file format: splits, names and error messages."""

import json
import os

import pytest
import tensorflow_datasets as tfds

from tests.train.data.tfrecords import (
    NAME,
    VERSION,
    example,
    indices,
    opened,
    own_cache,
    two_splits,
    write,
    write_shard,
)
from train.config.loading import default_config
from train.data.datasets import open_source
from train.data.sources import tfrecord
from train.data.sources.random_access import RandomAccessFile
from train.data.sources.tfds_source import open_prepared
from train.runtime.errors import RunError, UsageError

cache = pytest.fixture(own_cache, autouse=True)
place = pytest.fixture(two_splits)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("validation", range(10, 16)),
        ("train[:50%]", range(5)),
        ("train[3:7]", range(3, 7)),
        ("train[-2:]", [8, 9]),
        ("train+validation", range(16)),
        ("validation[1:3]+train[:2]", [11, 12, 0, 1]),
        ("all", range(16)),
    ],
)
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_splits_have_the_same_records_in_either_format(tmp_path, split, expected, file_format):
    # ArrayRecord has no empty files, so every shard has records.
    place = write(tmp_path, {"train": [4, 6], "validation": [2, 4]}, file_format=file_format)
    source = opened(place, split)
    assert indices(source) == list(expected)
    assert source.class_names == ("cat", "dog", "newt")
    for i, index in enumerate(expected):
        assert source[i] == (example(index)["image"], index % 3)


def test_records_have_the_names_of_their_files(place):
    source = opened(place, "train[3:7]")
    assert [source.record_name(i) for i in range(4)] == [f"{i}.JPEG" for i in (3, 4, 5, 6)]


def test_a_directory_without_dataset_info_is_incomplete(place):
    (place / "dataset_info.json").unlink()
    with pytest.raises(UsageError, match=r"Could not read .*dataset_info\.json"):
        opened(place)
    place.parent.rename(place.parents[1] / "cifar10")
    (place.parents[1] / "cifar10" / VERSION).rename(place.parents[1] / "cifar10" / "3.0.2")
    with pytest.raises(RunError, match=r"has no dataset_info\.json and is incomplete"):
        open_prepared("cifar10", str(place.parents[1]), "train")


def test_the_message_names_the_prepared_version(tmp_path):
    place = write(tmp_path, {"train": [3]})
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps(info | {"name": "cifar10"}))
    for file in place.glob(f"{NAME}-*"):
        file.rename(place / file.name.replace(NAME, "cifar10"))
    place.parent.rename(tmp_path / "cifar10")
    with pytest.raises(RunError, match=r"holds cifar10 1\.2\.0.*name=tfds:cifar10:1\.2\.0"):
        open_prepared("cifar10", str(tmp_path), "train")
    assert len(open_prepared("cifar10:1.2.0", str(tmp_path), "train")) == 3
    # The directory of the data set itself instead of its parent.
    with pytest.raises(RunError, match="is itself a prepared data set"):
        open_prepared("cifar10", str(tmp_path / "cifar10" / "1.2.0"), "train")


def test_a_data_set_without_classes_is_an_error(tmp_path):
    features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
    place = write(tmp_path, {"train": [2]}, features, make=lambda n: {"image": b"x"})
    with pytest.raises(UsageError, match="has no ClassLabel feature; it has image"):
        opened(place)


def test_empty_and_unknown_splits_are_errors(tmp_path):
    place = write(tmp_path, {"train": [2], "test": [0]})
    for split in ("test", "train[1:1]", "valid"):
        with pytest.raises(UsageError, match=r"no images in the split .* are train, test"):
            opened(place, split)
    with pytest.raises(RunError, match="holds no examples"):
        opened(write(tmp_path / "none", {"train": [0]}))


def test_array_record_is_preferred_over_other_formats(place):
    info = json.loads((place / "dataset_info.json").read_text())
    info["alternativeFileFormats"] = ["array_record"]
    (place / "dataset_info.json").write_text(json.dumps(info))
    for old in place.glob("*.tfrecord-*"):
        name = old.name.replace(".tfrecord-", ".array_record-")
        files = tfrecord.TFRecordFiles([Part(str(old))])
        write_shard(place / name, "array_record", list(files))
        old.unlink()
    assert indices(opened(place)) == list(range(10))
    assert indices(opened(place, "validation[2:]")) == [12, 13, 14, 15]


class Part:
    """Return all records of a file."""

    def __init__(self, filename):
        self.filename, self.skip = filename, 0
        size = os.path.getsize(filename)
        starts = tfrecord._scan(RandomAccessFile(filename).read, size, filename)
        self.take = self.examples_in_shard = len(starts) - 1


def test_a_format_without_random_access_is_an_error(place):
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "riegeli"}))
    with pytest.raises(RunError, match=r"prepared as riegeli.*train\.prepare"):
        opened(place)


def test_prepared_data_open_if_their_code_cannot_be_imported(place, monkeypatch):
    def builder(*arguments, **options):
        raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")

    monkeypatch.setattr(tfds, "builder", builder)
    assert len(opened(place)) == 10
    for name in (f"{NAME}:{VERSION}", NAME):
        assert len(open_prepared(name, str(place.parents[1]), "validation")) == 6
    with pytest.raises(RunError, match=r"not prepared in .* and its code needs apache_beam"):
        open_prepared("coco", str(place.parents[1]), "train")


def test_features_can_be_chosen(tmp_path):
    label = tfds.features.ClassLabel(names=["a", "b"])
    kinds = {"image": tfds.features.Image(), "fine": label, "coarse": label}
    features = tfds.features.FeaturesDict(kinds)
    example = {"image": b"x", "fine": 1, "coarse": 0}
    place = write(tmp_path, {"train": [2]}, features, make=lambda n: example)
    dataset = default_config().dataset
    dataset.update(name=f"tfds:{NAME}", data_dir=str(place.parents[1]), label_key="fine")
    assert open_source(dataset, "train")[0] == (b"x", 1)
    dataset.label_key = "coarse"
    assert open_source(dataset, "train")[0] == (b"x", 0)
    dataset.label_key = "image"
    with pytest.raises(UsageError, match="has no ClassLabel feature 'image'; it has"):
        open_source(dataset, "train")
