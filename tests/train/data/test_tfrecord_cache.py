"""The cache of record offsets: filled once, repaired, and optional."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.train.data.tfrecords import indices, opened, own_cache, scans, two_splits
from train.data.sources import tfrecord

cache = pytest.fixture(own_cache, autouse=True)
place = pytest.fixture(two_splits)


def test_each_file_is_scanned_once(place, cache, monkeypatch):
    scanned = scans(monkeypatch)
    opened(place)
    assert len(scanned) == 2 == len(list(cache.iterdir()))
    opened(place, "train[:3]")
    assert indices(opened(place)) == list(range(10)) and len(scanned) == 2
    # A modified file is scanned again.
    shard = next(place.glob("*train*-00000-*"))
    stamp = shard.stat().st_mtime_ns + 1_000_000_000
    os.utime(shard, ns=(stamp, stamp))
    assert indices(opened(place)) == list(range(10)) and len(scanned) == 3


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda data: b"",
        lambda data: data[:-3],
        lambda data: data[:-8] + b"\x00" * 8,
        lambda data: data.replace(b"1 ", b"2 ", 1),
        lambda data: b"\xff" * 100,
    ],
)
def test_a_corrupt_cache_is_ignored_and_repaired(place, cache, monkeypatch, corrupt):
    opened(place)
    for file in cache.iterdir():
        file.write_bytes(corrupt(file.read_bytes()))
    scanned = scans(monkeypatch)
    assert indices(opened(place)) == list(range(10)) and len(scanned) == 2
    opened(place)
    assert len(scanned) == 2


def test_reading_works_without_a_writable_cache(place, cache):
    cache.parent.parent.mkdir(parents=True, exist_ok=True)
    cache.parent.write_text("a file in place of the directory")
    assert indices(opened(place)) == list(range(10))


def test_the_cache_may_be_filled_concurrently(place, cache):
    files = [(str(path), n) for path, n in zip(sorted(place.glob("*-valid*")), (2, 4), strict=True)]
    barrier = threading.Barrier(8)

    def index(_):
        barrier.wait()
        return [tfrecord._index(*file).tolist() for file in files]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(index, range(8)))
    assert all(result == results[0] for result in results)
    assert len(list(cache.iterdir())) == 2
