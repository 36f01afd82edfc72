"""A second copy of a data set with its larger images made smaller, so that they decode faster."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core.proto import dataset_info_pb2
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from flax_resnet.decoding import decode_rgb
from train.data.images import encode_jpeg, read_header, resize_area
from train.data.tfds_source import only, open_builder, raw_records
from train.prepare import staging
from train.runtime.errors import RunError, UsageError

QUALITY = 95
AHEAD = 8  # records a thread may be ahead of the one that is written


def resize(builder: tfds.core.DatasetBuilder, folder: str, side: int) -> tfds.core.DatasetBuilder:
    """Writes ``builder``'s data set into ``folder`` with shorter sides of at most ``side``.

    Records, their order, labels and other features stay. Larger images are resized and become
    JPEG of quality 95, upright and RGB; so do smaller ones that are no JPEG or are CMYK. Others
    stay as they are, byte for byte, and so do those that cannot be decoded.

    Returns the builder of the new data set, named as :func:`resized_name` says. One that is
    there already is left as it is. Raises UsageError where no image is larger, and RunError
    where there is no room or the data set cannot be read.
    """
    name, version = resized_name(builder, side), str(builder.info.version)
    if "://" in folder:
        raise UsageError(f"--resize writes to local folders only, not to {folder!r}")
    place = os.path.join(folder, name, version)
    if os.path.exists(os.path.join(place, "dataset_info.json")):
        print(f"{place} is there: nothing to resize", flush=True)
        return open_builder(name, folder)
    image_key = only(builder.info.features, tfds.features.Image, builder.name)
    shape = builder.info.features[image_key].shape
    if None not in shape[:2] and min(shape[:2]) <= side:
        raise UsageError(
            f"--resize={side}: the images of {builder.name} are {shape[0]}×{shape[1]}, so none is"
            " larger"
        )
    with staging.staging(folder, name, int(builder.info.dataset_size)) as staged:
        built = os.path.join(staged, version)
        os.mkdir(built)
        try:
            _write(builder, name, image_key, side, built)
        except (OSError, RuntimeError) as error:  # RuntimeError is ArrayRecord's for a full disk
            raise RunError(f"cannot write {name} in {folder!r}: {error}") from error
        if not staging.publish(built, place):
            print("another process was first; its data set is kept", flush=True)
    return open_builder(name, folder)


def resized_name(builder: tfds.core.DatasetBuilder, side: int) -> str:
    """``imagenet2012_400``; a configuration's name becomes part of it."""
    full_name = builder.info.full_name.rpartition("/")[0]
    return f"{re.sub('[^a-z0-9]+', '_', full_name.lower())}_{side}"


def shrink(encoded: bytes, side: int) -> bytes:
    """Re-encodes an image as :func:`resize` says. Raises ValueError for what is no image."""
    try:
        kind, mode, *sides = read_header(encoded)
        if kind == "JPEG" and mode in ("RGB", "L") and min(sides) <= side:
            return encoded
    except Exception:
        pass  # the decoder may know better
    pixels = decode_rgb(encoded)
    height, width = pixels.shape[:2]
    if min(height, width) > side:
        scale = side / min(height, width)
        width, height = max(side, round(width * scale)), max(side, round(height * scale))
        pixels = resize_area(pixels, width, height)
    return encode_jpeg(pixels, QUALITY)


class _Counts:
    """What became of the images; one thread adds them up."""

    resized = kept = broken = before = after = 0

    def add(self, before: int, after: int, what: str) -> None:
        self.before += before
        self.after += after
        setattr(self, what, getattr(self, what) + 1)


def _write(
    builder: tfds.core.DatasetBuilder, name: str, image_key: str, side: int, folder: str
) -> None:
    started, counts = time.monotonic(), _Counts()
    splits = [_SplitWriter(builder, name, split, folder) for split in builder.info.splits]
    total = sum(len(split.raw) for split in splits)
    print(f"resizing {total:,} images to a shorter side of {side}…", flush=True)
    seconds = 0.5 if sys.stderr.isatty() else 60
    with (
        tqdm(total=total, unit=" images", mininterval=seconds, maxinterval=seconds) as bar,
        ThreadPoolExecutor(_threads()) as pool,
    ):
        for split in splits:
            split.write(pool, image_key, side, counts, bar)
    _describe(builder, name, image_key, side, splits, folder)
    print(
        f"{counts.resized:,} images encoded anew, {counts.kept:,} kept as they were;"
        f" {staging.size(counts.before)} became {staging.size(counts.after)}"
        f" in {(time.monotonic() - started) / 60:.1f} min",
        flush=True,
    )
    if counts.broken:
        print(f"{counts.broken:,} cannot be decoded and were copied as they are", flush=True)


class _SplitWriter:
    """One split: a new shard for each old one, of the same records in the same order."""

    def __init__(self, builder: tfds.core.DatasetBuilder, name: str, split: str, folder: str):
        self.raw = raw_records(builder, builder.name, split)
        self.split = split
        self.lengths = [length for length in builder.info.splits[split].shard_lengths if length]
        if sum(self.lengths) != len(self.raw):
            raise RunError(
                f"{builder.data_path} has {len(self.raw):,} {split} records where its"
                f" dataset_info.json counts {sum(self.lengths):,}"
            )
        self.bytes = 0
        self._stem = os.path.join(folder, f"{name}-{split}.array_record")

    def write(
        self, pool: ThreadPoolExecutor, image_key: str, side: int, counts: _Counts, bar: tqdm
    ) -> None:
        def convert(index: int) -> tuple[bytes, int, int, str]:
            return _convert(self.raw[index], image_key, side)

        done = _in_order(pool, convert, range(len(self.raw)))
        for number, length in enumerate(self.lengths):
            path = f"{self._stem}-{number:05d}-of-{len(self.lengths):05d}"
            writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
            try:
                for _ in range(length):
                    record, *outcome = next(done)
                    writer.write(record)
                    self.bytes += len(record)
                    counts.add(*outcome)
                    bar.update()
            finally:
                writer.close()


def _convert(record: bytes, image_key: str, side: int) -> tuple[bytes, int, int, str]:
    """The new record, the image's bytes before and after, and what was done."""
    # Changed in place, so that every other feature stays what it was.
    example = tf_example_pb2.Example.FromString(record)
    value = example.features.feature[image_key].bytes_list.value
    before = len(value[0])
    try:
        image = shrink(value[0], side)
    except ValueError:  # training reports it, where it counts
        return record, before, before, "broken"
    if image == value[0]:
        return record, before, before, "kept"
    value[0] = image
    return example.SerializeToString(), before, len(image), "resized"


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """As ``pool.map``, but only a few results are kept waiting."""
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _threads() * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _threads() -> int:
    from train.data.loader import cores

    return cores() + 1


def _describe(
    builder: tfds.core.DatasetBuilder,
    name: str,
    image_key: str,
    side: int,
    splits: list[_SplitWriter],
    folder: str,
) -> None:
    """Writes the files from which TFDS opens a data set without its code."""
    features = tfds.features.FeaturesDict(
        dict(builder.info.features.items())
        | {image_key: tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")}
    )
    features.save_config(folder)
    info = dataset_info_pb2.DatasetInfo()
    info.CopyFrom(builder.info.as_proto)
    for field in (
        *("config_name", "config_description", "config_tags", "module_name", "download_size"),
        *("alternative_file_formats", "data_source_accesses", "splits", "release_notes"),
    ):
        info.ClearField(field)
    info.name = name
    info.version = str(builder.info.version)
    info.file_format = "array_record"
    info.description = (
        f"{info.description}\n\nA copy of {builder.info.full_name} by train.prepare: images with a"
        f" shorter side of more than {side} pixels were resized to {side} and encoded as JPEG of"
        f" quality {QUALITY}."
    ).strip()
    for split in splits:
        info.splits.add(
            name=split.split,
            shard_lengths=split.lengths,
            num_bytes=split.bytes,
            filepath_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        )
    # Written last: its presence says that the data set is whole.
    tfds.core.dataset_info.write_dataset_info_proto(info, dataset_info_dir=folder)
