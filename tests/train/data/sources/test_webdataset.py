"""Tar shards: their splits, labels, cached index, and hostile files."""

import gzip
import json
import shutil
import tarfile

import numpy as np
import pytest

from tests.train.data.labeled import IMAGES, LABELS, add, opened, write_shard
from train.data.corrupt_records import CorruptRecords
from train.data.images import encode_png
from train.data.loader import DataLoader
from train.data.sources import tar_index
from train.data.sources.webdataset import find_shards
from train.runtime.errors import RunError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/flax_resnet/webdataset"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def shards(folder, pattern):
    """Write three shards of ten images."""
    for number in range(3):
        part = slice(10 * number, 10 * number + 10)
        write_shard(folder / pattern.format(number), IMAGES[part], LABELS[part], part.start)


@pytest.mark.parametrize(
    ("pattern", "data_dir", "split", "count"),
    [
        ("train/{:03}.tar", "", "train", 30),
        ("in-train-{:06}.tar", "", "train", 30),
        ("validation/{}.tar", "", "test", 30),
        ("s-{:06}.tar", "", "train", 30),
        ("s-{:06}.tar", "", "train[40%:]", 18),
        ("s-{:06}.tar", "", "s-{000001..000002}.tar", 20),
        ("s-{:06}.tar", "", "s-00000{0,2}.tar[5:]", 15),
        ("s-{:06}.tar", "s-{000000..000001}.tar", "train", 20),
        ("deep/s-{}.tar", "deep/s-?.tar", "all", 30),
    ],
)
def test_shards_are_found_by_folder_name_or_pattern(folder, pattern, data_dir, split, count):
    shards(folder, pattern)
    source = opened("webdataset", folder / data_dir, split)
    assert len(source) == count
    last = 29 if "0001}" not in data_dir else 19
    np.testing.assert_array_equal(source.decode(count - 1)[0][..., 0], IMAGES[last])
    assert source.record_name(count - 1).endswith(f".tar/{last:04d}")


def test_braces_are_those_of_a_shell(folder):
    shards(folder, "s-{}.tar")
    names = [path.rpartition("/")[2] for path in find_shards(str(folder), "s-{2..2}{.tar,.tar}")[1]]
    assert names == ["s-2.tar"] * 2
    with pytest.raises(UsageError, match="must have 1 to 100,000 shards"):
        find_shards(str(folder), "{0..999}{0..999}.tar")
    with pytest.raises(RunError, match=r"the shard .*s-3\.tar' does not exist"):
        find_shards(str(folder), "s-{0..3}.tar")


def test_labels_are_numbers_names_or_fields(folder):
    def write(label):
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / "train.tar", "w") as archive:
            for number in range(3):
                add(archive, f"a/{number}.x.jpg", b"not this")
                add(archive, f"a/{number}.png", encode_png(IMAGES[number]))
                add(archive, f"a/{number}.{label(number)[0]}", label(number)[1].encode())

    def labels(**keys):
        source = opened("webdataset", folder, **keys)
        return [source[i][1] for i in range(3)], source.class_names

    write(lambda n: ("cls", ["dog\n", "cat", "dog"][n]))
    assert labels() == ([1, 0, 1], ("cat", "dog"))
    write(lambda n: ("json", json.dumps({"label": [2, 0, 1][n], "name": "zab"[n]})))
    assert labels() == ([2, 0, 1], ("0", "1", "2"))
    assert labels(label_key="json.name") == ([2, 0, 1], ("a", "b", "z"))
    write(lambda n: ("Kind", "012"[n]))
    (folder / "class_names.txt").write_text("cat\ndog\nnewt\neft\n")
    assert labels(label_key="kind") == ([0, 1, 2], ("cat", "dog", "newt", "eft"))
    assert opened("webdataset", folder, label_key="kind", image_key="x.jpg")[0][0] == b"not this"


def test_each_shard_is_indexed_once_in_the_cache(folder, cache, monkeypatch):
    shards(folder, "train-{}.tar")
    before = opened("webdataset", folder)
    beside = sorted(path.name for path in folder.iterdir())
    assert beside == [f"train-{n}.tar" for n in range(3)] and len(list(cache.iterdir())) == 3
    scan = tar_index._scan
    monkeypatch.setattr(tar_index, "_scan", None)
    again = opened("webdataset", folder)
    assert [again[i] for i in range(30)] == [before[i] for i in range(30)]
    assert list(again.names) == list(before.names)
    # A corrupt index, and a shard that has changed.
    scanned = []
    monkeypatch.setattr(tar_index, "_scan", lambda *args: scanned.append(args[2]) or scan(*args))
    (file, *_) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    write_shard(folder / "train-1.tar", IMAGES[:5], LABELS[:5])
    assert len(opened("webdataset", folder)) == 25 and 1 <= len(scanned) <= 2


def test_corrupt_images_are_replaced_and_named(folder, digits_config):
    shards(folder, "train-{}.tar")
    shutil.copytree(folder, folder / "val")
    place = folder / "val/train-1.tar"
    data = place.read_bytes()
    at = data.index(encode_png(IMAGES[13]))
    place.write_bytes(data[:at] + b"XXXX" + data[at + 4 :])
    digits_config.dataset.update(name="webdataset", data_dir=str(folder))
    warnings = []
    log = CorruptRecords(warn=warnings.append)
    loader = DataLoader(digits_config, "val", False).load(log)
    assert "train-1.tar/0013: " in warnings[0] and len(warnings) == 1
    assert sum(batch["valid"].sum() for batch in loader.eval_batches(8)) == 29


def link(archive):
    add(archive, "9.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: add(a, "/etc/9.png", b"x"), "/etc/9.png, a path outside of its folder"),
        (lambda a: add(a, "a/../../9.png", b"x"), "a path outside of its folder"),
        (link, "9.png, a link, a device"),
        (lambda a: add(a, "9.png", type=tarfile.LNKTYPE, linkname="0.png"), "9.png, a link"),
        (lambda a: add(a, "9.png", type=tarfile.BLKTYPE), "9.png, a link, a device"),
        (lambda a: add(a, "9.png", type=tarfile.FIFOTYPE), "9.png, a link, a device"),
        (lambda a: add(a, "0001.png", b"x"), "two files 0001.png"),
        (lambda a: add(a, "0001.jpg", b"x"), r"0001 in .* several images: png, jpg"),
        (lambda a: add(a, "9.png", b"x"), "the sample 9 in .* has no label"),
        (lambda a: add(a, "9.cls", b"1"), r"the sample 9 in .* has no image, only files .* \.cls"),
        (lambda a: add(a, "n\n\x1b.png", b"x"), r"the sample n\\n\\x1b in"),
        (lambda a: [add(a, "9.png"), add(a, "9.cls")], r"no valid \.cls: it is empty"),
        (lambda a: [add(a, "9.png"), add(a, "9.json", b"[" * 10**5)], r"no valid \.json"),
        (lambda a: [add(a, "9.png"), add(a, "9.cls", b"7")], "no image has the label 3"),
    ],
)
def test_hostile_members_end_in_one_line(folder, change, message):
    path = folder / "train.tar"
    write_shard(path, IMAGES[:3], LABELS[:3])
    with tarfile.open(path, "a") as archive:
        change(archive)
    check_error(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:700], "corrupt tar file: unexpected end"),
        (lambda data: data[:2048], "corrupt tar file: .*truncated"),
        (lambda data: data[:1024] + bytes(range(256)) * 2 + data[1536:], "corrupt tar file"),
        (lambda data: b"", "corrupt tar file: empty file"),
        (gzip.compress, "compressed with gzip.*decompress it"),
    ],
)
def test_damaged_shards_end_in_one_line(folder, change, message):
    path = folder / "train.tar"
    write_shard(path, IMAGES[:3], LABELS[:3])
    path.write_bytes(change(path.read_bytes()))
    check_error(folder, message)


def check_error(folder, message):
    with pytest.raises((RunError, UsageError), match=message) as caught:
        opened("webdataset", folder)
    assert "\n" not in str(caught.value)


def test_a_size_that_claims_more_than_the_file_is_an_error(folder):
    path = folder / "train.tar"
    write_shard(path, IMAGES[:3], LABELS[:3])
    data = bytearray(path.read_bytes())
    for size in (b"77777777777\0", b"\x80" + b"\x7f" * 11, b"\xff" * 10 + b"\xf8\0"):
        data[1024 + 124 : 1024 + 136] = size
        data[1024 + 148 : 1024 + 156] = b" " * 8
        data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
        path.write_bytes(data)
        with pytest.raises(RunError, match=r"corrupt tar file|cannot read"):
            opened("webdataset", folder)


def test_missing_shards_are_explained(folder):
    with pytest.raises(RunError, match="does not exist"):
        opened("webdataset", folder)
    folder.mkdir()
    with pytest.raises(RunError, match=r"has no shards.*folders train and val"):
        opened("webdataset", folder)
    (folder / "a.tar.gz").touch()
    with pytest.raises(
        RunError, match=r"has only compressed shards, such as .*a\.tar\.gz; decompress"
    ):
        opened("webdataset", folder)
    shards(folder, "train-{}.tar")
    with pytest.raises(RunError, match="has compressed shards, such as"):
        opened("webdataset", folder)  # their images would be missing
    (folder / "a.tar.gz").unlink()
    with pytest.raises(UsageError, match=r"no split 'test', only images for training"):
        opened("webdataset", folder, "test")
