"""Copies of data sets with larger images resized, so that they decode faster."""

import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core.proto import dataset_info_pb2
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from flax_resnet.decoding import decode_rgb
from flax_resnet.images.formats import detect_format
from flax_resnet.images.headers import inspect_jpeg
from flax_resnet.text import error_reason
from train.data.images import encode_jpeg, resize_area
from train.data.sources.tfds_source import find_feature, open_builder, raw_records
from train.prepare import staging
from train.runtime.errors import RunError, UsageError, print_line
from train.runtime.formatting import format_bytes
from train.runtime.host import decoding_threads

JPEG_QUALITY = 95
PREFETCH = 8  # records per thread that may wait to be written


def resize_dataset(
    builder: tfds.core.DatasetBuilder, folder: str, side: int
) -> tfds.core.DatasetBuilder:
    """Write a copy of a data set whose images have a shorter side of at most ``side`` pixels.

    Records keep their order, labels and other features. Larger images are resized and stored as
    upright RGB JPEG of quality 95; so are smaller images that are CMYK or not JPEG. All other
    images, including those that cannot be decoded, are copied byte for byte. A copy that already
    exists is not changed.

    Args:
      builder: the original data set.
      folder: local directory of the copy.
      side: maximum length of the shorter side in pixels.

    Returns:
      The builder of the copy, whose name is :func:`resized_name`.

    Raises:
      UsageError: no image is larger, or ``folder`` is not local.
      RunError: disk space is missing or the data set cannot be read.
    """
    name, version = resized_name(builder, side), str(builder.info.version)
    if "://" in folder:
        raise UsageError(f"--resize can write to local folders only, not to {folder!r}")
    destination = os.path.join(folder, name, version)
    if os.path.exists(os.path.join(destination, "dataset_info.json")):
        print_line(f"{destination} exists: nothing to resize")
        return open_builder(name, folder)
    image_key = find_feature(builder.info.features, tfds.features.Image, builder.name)
    shape = builder.info.features[image_key].shape
    if None not in shape[:2] and min(shape[:2]) <= side:
        raise UsageError(
            f"--resize={side}: the images of {builder.name} are {shape[0]}×{shape[1]}, so none is"
            " larger"
        )
    with staging.staging_dir(folder, name, int(builder.info.dataset_size)) as staged:
        built = os.path.join(staged, version)
        os.mkdir(built)
        try:
            _write_copy(builder, name, image_key, side, built)
        except (OSError, RuntimeError) as error:  # RuntimeError: ArrayRecord, disk full
            raise RunError(f"cannot write {name} in {folder!r}: {error_reason(error)}") from error
        if not staging.publish(built, destination):
            print("another process finished first; its data set is kept", flush=True)
    return open_builder(name, folder)


def resized_name(builder: tfds.core.DatasetBuilder, side: int) -> str:
    """Return the name of the copy, such as ``imagenet2012_400``, including any configuration."""
    full_name = builder.info.full_name.rpartition("/")[0]
    return f"{re.sub('[^a-z0-9]+', '_', full_name.lower())}_{side}"


def shrink_image(encoded: bytes, side: int) -> bytes:
    """Re-encode an image as described in :func:`resize_dataset`.

    Raises:
      ValueError: the bytes cannot be decoded.
    """
    if detect_format(encoded) == "JPEG":
        header = inspect_jpeg(encoded)
        if header.plain and min(header.width, header.height) <= side:
            return encoded
    pixels = decode_rgb(encoded)
    height, width = pixels.shape[:2]
    if min(height, width) > side:
        scale = side / min(height, width)
        width, height = max(side, round(width * scale)), max(side, round(height * scale))
        pixels = resize_area(pixels, width, height)
    return encode_jpeg(pixels, JPEG_QUALITY)


def _write_copy(
    builder: tfds.core.DatasetBuilder, name: str, image_key: str, side: int, folder: str
) -> None:
    started, counts = time.monotonic(), Counter()
    splits = [_SplitWriter(builder, name, split, folder) for split in builder.info.splits]
    total = sum(len(split.raw) for split in splits)
    print(f"resizing {total:,} images to a shorter side of {side}…", flush=True)
    seconds = 0.5 if sys.stderr.isatty() else 60
    with (
        tqdm(total=total, unit=" images", mininterval=seconds, maxinterval=seconds) as bar,
        ThreadPoolExecutor(decoding_threads()) as pool,
    ):
        for split in splits:
            split.write(pool, image_key, side, counts, bar)
    _write_metadata(builder, name, image_key, side, splits, folder)
    print(
        f"{counts['re-encoded']:,} images re-encoded, {counts['unchanged']:,} unchanged;"
        f" {format_bytes(counts['old bytes'])} became {format_bytes(counts['new bytes'])}"
        f" in {(time.monotonic() - started) / 60:.1f} min",
        flush=True,
    )
    if counts["corrupt"]:
        print(f"corrupt images copied unchanged: {counts['corrupt']:,}", flush=True)


class _SplitWriter:
    """Writer of one split: a new shard for each old one, with the same records in order."""

    def __init__(self, builder: tfds.core.DatasetBuilder, name: str, split: str, folder: str):
        self.raw = raw_records(builder, builder.name, split)
        self.split = split
        self.lengths = [length for length in builder.info.splits[split].shard_lengths if length]
        if sum(self.lengths) != len(self.raw):
            raise RunError(
                f"{builder.data_path} has {len(self.raw):,} {split} records, but its"
                f" dataset_info.json lists {sum(self.lengths):,}"
            )
        self.bytes = 0
        self._stem = os.path.join(folder, f"{name}-{split}.array_record")

    def write(
        self, pool: ThreadPoolExecutor, image_key: str, side: int, counts: Counter[str], bar: tqdm
    ) -> None:
        """Convert all records in ``pool`` and write them in order."""

        def convert(index: int) -> tuple[bytes, Counter[str]]:
            return _convert_record(self.raw[index], image_key, side)

        converted = _map_in_order(pool, convert, range(len(self.raw)))
        for number, length in enumerate(self.lengths):
            path = f"{self._stem}-{number:05d}-of-{len(self.lengths):05d}"
            writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
            try:
                for _ in range(length):
                    record, outcome = next(converted)
                    writer.write(record)
                    self.bytes += len(record)
                    counts.update(outcome)
                    bar.update()
            finally:
                writer.close()


def _convert_record(record: bytes, image_key: str, side: int) -> tuple[bytes, Counter[str]]:
    """Return the new record, and its contribution to the counts of images and bytes."""
    # Modified in place, so that all other features are preserved.
    example = tf_example_pb2.Example.FromString(record)
    value = example.features.feature[image_key].bytes_list.value
    old = new = value[0]
    outcome = "unchanged"
    try:
        new = shrink_image(old, side)
    except ValueError:  # training reports corrupt images
        outcome = "corrupt"
    if new != old:
        outcome, value[0] = "re-encoded", new
        record = example.SerializeToString()
    return record, Counter({outcome: 1, "old bytes": len(old), "new bytes": len(new)})


def _map_in_order(
    pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Yield results as ``pool.map`` does, with a limited number of pending results."""
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= decoding_threads() * PREFETCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _write_metadata(
    builder: tfds.core.DatasetBuilder,
    name: str,
    image_key: str,
    side: int,
    splits: list[_SplitWriter],
    folder: str,
) -> None:
    """Write the files from which TFDS opens a data set without its code."""
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
        f" quality {JPEG_QUALITY}."
    ).strip()
    for split in splits:
        info.splits.add(
            name=split.split,
            shard_lengths=split.lengths,
            num_bytes=split.bytes,
            filepath_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        )
    # Written last: its presence marks the data set as complete.
    tfds.core.dataset_info.write_dataset_info_proto(info, dataset_info_dir=folder)
