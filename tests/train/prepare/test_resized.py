"""Tests of resized copies of data sets."""

import io
import json

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from flax_resnet.decoding import decode_rgb
from tests.train.pictures import encode, photograph, rotated
from train.data.sources.tfds_source import open_builder, open_prepared, raw_records
from train.prepare.resized import resize_dataset, resized_name, shrink_image
from train.runtime.errors import UsageError


@pytest.fixture
def photos(tmp_path):
    """Write a data set with images in many formats to ``tmp_path``, as ArrayRecord."""
    images = {
        "large": encode(photograph(0, 90, 120), "JPEG"),
        "tall": encode(photograph(1, 150, 70), "JPEG"),
        "small": encode(photograph(2, 40, 80), "JPEG"),
        "small gray": encode(photograph(3, 40, 80), "JPEG", "L"),
        "large gray": encode(photograph(4, 90, 120), "JPEG", "L"),
        "cmyk": encode(photograph(5, 90, 120), "JPEG", "CMYK"),
        "small cmyk": encode(photograph(6, 40, 80), "JPEG", "CMYK"),
        "small png": encode(photograph(7, 40, 80), "PNG"),
        "rotated": encode(photograph(8, 90, 120), "JPEG", exif=rotated(6)),
        "broken": b"\xff\xd8broken",
    }
    write_array_record(tmp_path, images)
    return images


def write_array_record(folder, images):
    """Write `photos`, a prepared data set in three shards; its records also have a text feature."""
    from array_record.python import array_record_module

    path = folder / "photos" / "2.1.0"
    path.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "name": tfds.features.Text(),
        }
    )
    features.save_config(path)
    records = [
        features.serialize_example({"image": image, "label": n % 2, "name": name.encode()})
        for n, (name, image) in enumerate(images.items())
    ]
    lengths, start = [4, 4, len(records) - 8], 0
    for number, length in enumerate(lengths):
        shard = path / f"photos-train.array_record-{number:05d}-of-00003"
        writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
        for record in records[start : start + length]:
            writer.write(record)
        writer.close()
        start += length
    split = {
        "name": "train",
        "shardLengths": [str(length) for length in lengths],
        "numBytes": str(sum(map(len, records))),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "photos", "version": "2.1.0", "fileFormat": "array_record", "splits": [split]}
    (path / "dataset_info.json").write_text(json.dumps(info))


def test_resized_copy_preserves_order_labels_and_other_features(photos, tmp_path, capsys):
    original = open_builder("photos", str(tmp_path))
    small = resize_dataset(original, str(tmp_path), 48)
    assert resized_name(original, 48) == small.name == "photos_48"
    output = capsys.readouterr().out
    assert "7 images re-encoded, 2 unchanged" in output
    assert "corrupt images copied unchanged: 1\n" in output
    before = open_prepared("photos", str(tmp_path), "train")
    after = open_prepared("photos_48", str(tmp_path), "train")
    assert after.class_names == ("a", "b")
    assert [after[i][1] for i in range(10)] == [before[i][1] for i in range(10)]
    names = [
        small.info.features.deserialize_example_np(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )["name"]
        for record in raw_records(small, "photos_48", "train")
    ]
    assert [name.decode() for name in names] == list(photos)
    assert small.info.splits["train"].shard_lengths == [4, 4, 2]
    kept = [name for i, name in enumerate(photos) if after[i][0] == before[i][0]]
    assert kept == ["small", "small gray", "broken"]
    for index, name in enumerate(photos):
        if name in kept:
            continue
        with Image.open(io.BytesIO(after[index][0])) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB"), name
            assert not image.getexif()
        pixels, expected = after.decode(index)[0], decode_rgb(photos[name])
        assert min(pixels.shape[:2]) == min(48, *expected.shape[:2]), name
        expected = cv2.resize(expected, pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(pixels.astype(int) - expected).mean() < 4, name
    # A second call does nothing, and no temporary files remain.
    resize_dataset(original, str(tmp_path), 48)
    assert "nothing to resize" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "photos_48"]


def test_interrupted_resizing_leaves_no_files(photos, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.prepare.resized._write_metadata", interrupt)
    with pytest.raises(KeyboardInterrupt):
        resize_dataset(open_builder("photos", str(tmp_path)), str(tmp_path), 48)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_resizing_is_rejected_if_no_image_is_larger(data_dir):
    from train.config.loading import default_config
    from train.data.datasets import open_source

    dataset = default_config().dataset
    dataset.data_dir = data_dir
    open_source(dataset, "test")
    with pytest.raises(UsageError, match="are 8×8, so none is larger"):
        resize_dataset(open_builder("sklearn_digits", data_dir), data_dir, 400)


def test_shrink_image_uses_the_shorter_side_without_aliasing():
    stripes = np.zeros((200, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode_rgb(shrink_image(encode(stripes, "PNG"), 50))
    assert pixels.shape == (50, 75, 3)
    assert 115 < pixels.min() and pixels.max() < 140
    with pytest.raises(ValueError):
        shrink_image(b"not an image", 50)


def test_missing_resized_copy_names_the_command(tmp_path):
    with pytest.raises(UsageError, match=r"train\.prepare --dataset=imagenet2012 --resize=400"):
        open_prepared("imagenet2012_400", str(tmp_path), "train")
