"""Random access to TFRecord files by threads and processes, also in buckets."""

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from tests.train.data.tfrecords import (
    NAME,
    VERSION,
    example,
    indices,
    opened,
    own_cache,
    scans,
    two_splits,
    write,
)
from train.data.sources import random_access, tfrecord
from train.data.sources.random_access import RandomAccessFile
from train.data.sources.tfds_source import open_prepared
from train.runtime.errors import RunError

cache = pytest.fixture(own_cache, autouse=True)
place = pytest.fixture(two_splits)


def test_empty_shards_are_skipped(place):
    assert indices(opened(place)) == list(range(10))


def test_indices_out_of_range_raise_index_error(place):
    source = opened(place)
    assert source[-1] == source[9]
    for index in (10, -11):
        with pytest.raises(IndexError):
            source[index]


def test_reading_does_not_import_tensorflow(place):
    code = (
        "import sys; from train.data.sources.tfds_source import open_prepared;"
        f"s = open_prepared({NAME!r}, {str(place.parents[1])!r}, 'train');"
        "s[9]; print(len(s), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[4], capture_output=True, text=True
    )
    assert done.stdout.split() == ["10", "False"], done.stderr


def test_checksum_is_crc_32c():
    # RFC 3720, B.4: 32 zeros, 32 ones, 0…31.
    rows = np.array([[0] * 32, [255] * 32, list(range(32))], np.uint8)
    crc = (tfrecord.masked_crc(rows) - np.uint32(0xA282EAD8)).astype(np.uint32)
    unmasked = (crc >> 17) | (crc << 15)
    assert [hex(value) for value in unmasked] == ["0x8a9136aa", "0x62a8ab43", "0x46dd794e"]


def test_event_files_of_tensorboard_are_scanned(tmp_path):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "log")) as writer:
        for step in range(20):
            writer.add_scalar("loss", 1.0, step)
    (path,) = map(str, (tmp_path / "log").iterdir())
    size = os.path.getsize(path)
    starts = tfrecord._scan(RandomAccessFile(path).read, size, path)
    assert len(starts) == 1 + 1 + 20 and starts[-1] == size


def test_several_threads_read_at_once(tmp_path):
    place = write(tmp_path, {"train": [50] * 4})
    source = opened(place)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(200), 20)).tolist()
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda i: source[i][0], order))
    assert images == [example(i)["image"] for i in order]


def test_the_number_of_open_files_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(random_access, "MAX_OPEN_FILES", 3)
    source = opened(write(tmp_path, {"train": [2] * 40}))

    def count():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("/proc/self/fd does not exist")
    source[0]
    before = count()
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda i: source[i], range(80)))) == 80
    assert count() <= before + 3


def test_sources_are_pickled_for_other_processes(place):
    source = opened(place, "train[2:]")
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert indices(copy) == list(range(2, 10))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        records = pool.apply(operator_getall, (source.records,))
    assert records == [source[i] for i in range(8)]


def operator_getall(records):
    return [(records[i]["image"], records[i]["label"]) for i in range(len(records))]


# Buckets -----------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """A directory ``gs://bucket`` in memory."""
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
        pytest.skip("epath reads buckets with TensorFlow if it is installed")
    for file in place.iterdir():
        target = epath.Path(bucket) / NAME / VERSION / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    source = open_prepared(NAME, bucket, "train[1:]")
    assert indices(source) == list(range(1, 10))
    scanned = scans(monkeypatch)
    assert indices(open_prepared(NAME, bucket, "train[1:]")) == list(range(1, 10))
    assert not scanned
    (epath.Path(bucket) / NAME / VERSION / f"{NAME}-train.tfrecord-00000-of-00003").unlink()
    with pytest.raises(RunError, match=r"gs://bucket.* is missing"):
        open_prepared(NAME, bucket, "train")


def test_files_that_can_only_seek_are_read(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread")
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    file = RandomAccessFile(str(path))
    assert not hasattr(file._file, "fs")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: file.read(start, 5), range(190)))
    assert parts == [bytes(range(start, start + 5)) for start in range(190)]
    assert isinstance(file._file, io.BufferedReader)
