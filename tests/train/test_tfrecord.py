"""TFRecord directories: reading without TensorFlow, the cache of places, and damage."""

import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from train.data import tfrecord
from train.data.decode import BadImage
from train.data.prepared import open_prepared
from train.errors import RunError, UsageError

NAME, VERSION = "made_here", "1.2.0"


def framed(record):
    """One record as TFRecord keeps it; nothing reads the data's checksum."""
    length = np.array([[len(record)]], "<u8").view(np.uint8)
    crc = tfrecord.masked_crc(length).astype("<u4").tobytes()
    return length.tobytes() + crc + record + b"data"


FEATURES = tfds.features.FeaturesDict(
    {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=["cat", "dog", "newt"]),
        "file_name": tfds.features.Text(),
    }
)


def example(index):
    image = b"image %d " % index * (index % 5 + 1)
    return {"image": image, "label": index % 3, "file_name": f"{index}.JPEG".encode()}


def write(folder, splits, features=FEATURES, file_format="tfrecord", make=example):
    """A prepared directory; ``splits`` gives the records of each shard of each split."""
    place = Path(folder) / NAME / VERSION
    place.mkdir(parents=True)
    features.save_config(place)
    described, index = [], 0
    for split, lengths in splits.items():
        for number, length in enumerate(lengths):
            shard = place / f"{NAME}-{split}.{file_format}-{number:05d}-of-{len(lengths):05d}"
            records = (make(n) for n in range(index, index + length))
            write_shard(shard, file_format, map(features.serialize_example, records))
            index += length
        described.append(
            {
                "name": split,
                "shardLengths": [str(length) for length in lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": NAME, "version": VERSION, "fileFormat": file_format, "splits": described}
    (place / "dataset_info.json").write_text(json.dumps(info))
    return place


def write_shard(path, file_format, records):
    if file_format == "tfrecord":
        path.write_bytes(b"".join(map(framed, records)))
        return
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flax_resnet" / "tfrecord"


@pytest.fixture
def place(tmp_path):
    """Ten training records in three shards, one of them empty, and six for validation."""
    return write(tmp_path / "data", {"train": [4, 0, 6], "validation": [2, 4]})


def opened(place, split="train"):
    return open_prepared(NAME, str(place.parents[1]), split)


def indices(source):
    """Which of the records made here a source gives, in order."""
    return [int(source[i][0].split()[1]) for i in range(len(source))]


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
def test_splits_give_the_same_records_in_either_format(tmp_path, split, expected, file_format):
    # ArrayRecord has no empty files.
    place = write(tmp_path, {"train": [4, 6], "validation": [2, 4]}, file_format=file_format)
    source = opened(place, split)
    assert indices(source) == list(expected)
    assert source.class_names == ("cat", "dog", "newt")
    for i, index in enumerate(expected):
        assert source[i] == (example(index)["image"], index % 3)


def test_records_are_called_by_their_files_names(place):
    source = opened(place, "train[3:7]")
    assert [source.name_of(i) for i in range(4)] == [f"{i}.JPEG" for i in (3, 4, 5, 6)]


def test_shards_without_records_are_passed_over(place):
    assert indices(opened(place)) == list(range(10))


def test_reading_takes_no_tensorflow(place):
    code = (
        "import sys; from train.data.prepared import open_prepared;"
        f"s = open_prepared({NAME!r}, {str(place.parents[1])!r}, 'train');"
        "s[9]; print(len(s), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.stdout.split() == ["10", "False"], done.stderr


def test_the_checksum_is_crc_32c():
    # RFC 3720, B.4: 32 zeros, 32 ones, 0…31.
    rows = np.array([[0] * 32, [255] * 32, list(range(32))], np.uint8)
    crc = (tfrecord.masked_crc(rows) - np.uint32(0xA282EAD8)).astype(np.uint32)
    unmasked = (crc >> 17) | (crc << 15)
    assert [hex(value) for value in unmasked] == ["0x8a9136aa", "0x62a8ab43", "0x46dd794e"]


def test_tensorboards_files_are_tfrecord_files(tmp_path):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "log")) as writer:
        for step in range(20):
            writer.add_scalar("loss", 1.0, step)
    (path,) = map(str, (tmp_path / "log").iterdir())
    size = os.path.getsize(path)
    starts = tfrecord._walk(tfrecord._LocalFile(path).read, size, path)
    assert len(starts) == 1 + 1 + 20 and starts[-1] == size


def test_any_number_of_threads_may_read(tmp_path):
    place = write(tmp_path, {"train": [50] * 4})
    source = opened(place)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(200), 20)).tolist()
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda i: source[i][0], order))
    assert images == [example(i)["image"] for i in order]


def test_only_some_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "OPEN_FILES", 3)
    source = opened(write(tmp_path, {"train": [2] * 40}))

    def count():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system does not tell which files are open")
    source[0]
    before = count()
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda i: source[i], range(80)))) == 80
    assert count() <= before + 3


def _read_in_another_process(source):
    return [source[i] for i in range(len(source))]


def test_other_processes_get_it_by_pickling(place):
    source = opened(place, "train[2:]")
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert indices(copy) == list(range(2, 10))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        records = pool.apply(operator_getall, (source.records,))
    assert records == [source[i] for i in range(8)]


def operator_getall(records):
    return [(records[i]["image"], records[i]["label"]) for i in range(len(records))]


# The cache


def walks(monkeypatch):
    """Counts how many files are walked over."""
    walked, walk = [], tfrecord._walk
    monkeypatch.setattr(
        tfrecord, "_walk", lambda read, size, path: walked.append(path) or walk(read, size, path)
    )
    return walked


def test_files_are_walked_over_once(place, cache, monkeypatch):
    walked = walks(monkeypatch)
    opened(place)
    assert len(walked) == 2 == len(list(cache.iterdir()))
    opened(place, "train[:3]")
    assert indices(opened(place)) == list(range(10)) and len(walked) == 2
    # A file that was changed is walked over again.
    shard = next(place.glob("*train*-00000-*"))
    stamp = shard.stat().st_mtime_ns + 1_000_000_000
    os.utime(shard, ns=(stamp, stamp))
    assert indices(opened(place)) == list(range(10)) and len(walked) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-3],
        lambda data: data[:-8] + b"\x00" * 8,
        lambda data: data.replace(b"1 ", b"2 ", 1),
        lambda data: b"\xff" * 100,
    ],
)
def test_a_damaged_cache_is_ignored_and_mended(place, cache, monkeypatch, damage):
    opened(place)
    for file in cache.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    walked = walks(monkeypatch)
    assert indices(opened(place)) == list(range(10)) and len(walked) == 2
    opened(place)
    assert len(walked) == 2


def test_a_cache_that_cannot_be_written_is_done_without(place, cache):
    cache.parent.parent.mkdir(parents=True, exist_ok=True)
    cache.parent.write_text("a file where the folder would be")
    assert indices(opened(place)) == list(range(10))


def test_two_processes_may_fill_the_cache_at_once(place, cache):
    files = [(str(path), n) for path, n in zip(sorted(place.glob("*-valid*")), (2, 4), strict=True)]
    barrier = threading.Barrier(8)

    def index(_):
        barrier.wait()
        return [tfrecord._index(*file).tolist() for file in files]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(index, range(8)))
    assert all(result == results[0] for result in results)
    assert len(list(cache.iterdir())) == 2


# Damage


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
    with pytest.raises(BadImage, match=r"record 0 of 'train' in .* is damaged"):
        source[0]
    assert source[1][1] == 1


def test_numbers_outside_are_refused(place):
    source = opened(place)
    assert source[-1] == source[9]
    for index in (10, -11):
        with pytest.raises(IndexError):
            source[index]


# Directories that are not as they should be


def test_without_its_description_a_directory_is_not_whole(place):
    (place / "dataset_info.json").unlink()
    with pytest.raises(UsageError, match=r"Could not read .*dataset_info\.json"):
        opened(place)
    place.parent.rename(place.parents[1] / "cifar10")
    (place.parents[1] / "cifar10" / VERSION).rename(place.parents[1] / "cifar10" / "3.0.2")
    with pytest.raises(RunError, match=r"has no dataset_info\.json, so it is not complete"):
        open_prepared("cifar10", str(place.parents[1]), "train")


def test_another_version_than_the_one_looked_for_is_named(tmp_path):
    place = write(tmp_path, {"train": [3]})
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps(info | {"name": "cifar10"}))
    for file in place.glob(f"{NAME}-*"):
        file.rename(place / file.name.replace(NAME, "cifar10"))
    place.parent.rename(tmp_path / "cifar10")
    with pytest.raises(RunError, match=r"holds cifar10 1\.2\.0.*name=tfds:cifar10:1\.2\.0"):
        open_prepared("cifar10", str(tmp_path), "train")
    assert len(open_prepared("cifar10:1.2.0", str(tmp_path), "train")) == 3
    # The folder of the data set itself in place of the one above.
    with pytest.raises(RunError, match="is itself a prepared data set"):
        open_prepared("cifar10", str(tmp_path / "cifar10" / "1.2.0"), "train")


def test_a_data_set_without_classes_is_refused(tmp_path):
    features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
    place = write(tmp_path, {"train": [2]}, features, make=lambda n: {"image": b"x"})
    with pytest.raises(UsageError, match="has no ClassLabel feature; it has image"):
        opened(place)


def test_splits_that_are_empty_or_not_there(tmp_path):
    place = write(tmp_path, {"train": [2], "test": [0]})
    for split in ("test", "train[1:1]", "valid"):
        with pytest.raises(UsageError, match=r"no images under the split .*; it has train, test"):
            opened(place, split)
    with pytest.raises(RunError, match="holds no examples"):
        opened(write(tmp_path / "none", {"train": [0]}))


def test_of_several_formats_array_record_is_read(place):
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
    """All records of a file."""

    def __init__(self, filename):
        self.filename, self.skip = filename, 0
        size = os.path.getsize(filename)
        starts = tfrecord._walk(tfrecord._LocalFile(filename).read, size, filename)
        self.take = self.examples_in_shard = len(starts) - 1


def test_a_format_without_random_access_is_refused(place):
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "riegeli"}))
    with pytest.raises(RunError, match=r"prepared as riegeli.*train\.prepare"):
        opened(place)


def test_what_is_prepared_opens_where_its_code_cannot_be_imported(place, monkeypatch):
    def builder(*arguments, **options):
        raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")

    monkeypatch.setattr(tfds, "builder", builder)
    assert len(opened(place)) == 10
    for name in (f"{NAME}:{VERSION}", NAME):
        assert len(open_prepared(name, str(place.parents[1]), "validation")) == 6
    with pytest.raises(RunError, match=r"not prepared in .* and its code needs apache_beam"):
        open_prepared("coco", str(place.parents[1]), "train")


# Buckets


@pytest.fixture
def bucket(monkeypatch):
    """A folder ``gs://bucket`` that lives in memory."""
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store, pseudo_dirs = {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("gs://", "/"))

    bucket, backend = Bucket(), epath.backend.fsspec_backend
    monkeypatch.setenv("EPATH_USE_TF", "false")
    monkeypatch.setattr(type(backend), "_get_filesystem", lambda self, name: bucket)
    return "gs://bucket/data"


def test_buckets_are_read_through_epath(place, bucket, cache, monkeypatch):
    if epath.Path("gs://bucket")._backend is not epath.backend.fsspec_backend:
        pytest.skip("epath reads buckets through TensorFlow where that is installed")
    for file in place.iterdir():
        target = epath.Path(bucket) / NAME / VERSION / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    source = open_prepared(NAME, bucket, "train[1:]")
    assert indices(source) == list(range(1, 10))
    walked = walks(monkeypatch)
    assert indices(open_prepared(NAME, bucket, "train[1:]")) == list(range(1, 10))
    assert not walked
    (epath.Path(bucket) / NAME / VERSION / f"{NAME}-train.tfrecord-00000-of-00003").unlink()
    with pytest.raises(RunError, match=r"gs://bucket.* is missing"):
        open_prepared(NAME, bucket, "train")


def test_files_that_only_seek_are_read_as_well(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    file = tfrecord._OtherFile(str(path))
    assert not hasattr(file._file, "fs")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: file.read(start, 5), range(190)))
    assert parts == [bytes(range(start, start + 5)) for start in range(190)]
    assert isinstance(file._file, io.BufferedReader)
