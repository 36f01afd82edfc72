"""Prepared data sets of either file format for the tests."""

import json
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from train.data.sources import tfrecord
from train.data.sources.tfds_source import open_prepared

NAME, VERSION = "made_here", "1.2.0"


def framed(record):
    """Return one record in TFRecord's format; the checksum of the data is not read."""
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
    """Write a prepared directory; ``splits`` has the records of each shard of each split."""
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


def two_splits(tmp_path):
    """Ten training records in three shards, one of them empty, and six for validation."""
    return write(tmp_path / "data", {"train": [4, 0, 6], "validation": [2, 4]})


def own_cache(tmp_path, monkeypatch):
    """The directory of the cached offsets, one per test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flax_resnet" / "tfrecord"


def opened(place, split="train"):
    return open_prepared(NAME, str(place.parents[1]), split)


def indices(source):
    """Return the numbers of the records of a source, in order."""
    return [int(source[i][0].split()[1]) for i in range(len(source))]


def scans(monkeypatch):
    """A list of the files that are scanned."""
    scanned, scan = [], tfrecord._scan
    monkeypatch.setattr(
        tfrecord, "_scan", lambda read, size, path: scanned.append(path) or scan(read, size, path)
    )
    return scanned
