"""The digits, decoding, order, and batches of both kinds."""

import importlib.util
import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from train.data.decode import centre_crop, decode_rgb, random_resized_crop
from train.data.order import TrainOrder
from train.data.resident import gather
from train.data.sources import open_source
from train.data.splits import Split
from train.errors import RunError, UsageError


@pytest.fixture
def splits(digits_config):
    """Makes the digits' training split, resident or streamed."""

    def make(resident, training=True, **dataset):
        digits_config.data.resident = resident
        digits_config.dataset.update(dataset)
        return Split(digits_config, "train" if training else "test", training).load()

    return make


def test_digits_are_scikit_learns_last_360_for_testing(splits):
    pixels, labels = load_digits(return_X_y=True)
    expected = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    for training, images, targets in (
        (True, expected[:1437], labels[:1437]),
        (False, expected[1437:], labels[1437:]),
    ):
        data = splits("always", training).resident
        assert data["image"].shape == (len(images), 8, 8, 3)

        # TFDS shuffles records when it writes them.
        def in_order(images, labels):
            pairs = zip(images, labels, strict=True)
            return sorted((int(label), image.tobytes()) for image, label in pairs)

        assert in_order(data["image"][..., 1], data["label"]) == in_order(images, targets)


def test_reading_digits_needs_no_tensorflow_and_no_second_preparation(data_dir):
    code = (
        "import sys; from train.config import default_config;"
        "from train.data.sources import open_source; c = default_config();"
        f"c.dataset.data_dir = {data_dir!r};"
        "s = open_source(c.dataset, 'test'); s[3];"
        "print(len(s), 'tensorflow' in sys.modules, 'sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    again = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert again.stdout.split() == [b"360", b"False", b"False"]


def test_order_visits_each_record_at_most_once_an_epoch_and_follows_the_seed():
    order = TrainOrder(num_records=103, batch_size=10, seed=4)
    assert order.steps_per_epoch == 10
    epochs = [np.concatenate([order[10 * e + b] for b in range(10)]) for e in range(3)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 100
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = [set(range(103)) - set(epoch) for epoch in epochs]
    assert left_out[0] != left_out[1]
    again = TrainOrder(103, 10, seed=4)
    np.testing.assert_array_equal(again[17], order[17])  # asked for out of order
    assert not np.array_equal(TrainOrder(103, 10, seed=5)[17], order[17])


@pytest.mark.parametrize("start", [0, 5, 22, 37])
def test_resident_and_streamed_batches_are_the_same_from_any_step(splits, start):
    resident, streamed = splits("always"), splits("never")
    assert not streamed.resident
    order = TrainOrder(len(resident), 64, seed=3)
    steps = range(start, start + 3)
    pairs = zip(
        resident.train_batches(order, steps), streamed.train_batches(order, steps), strict=True
    )
    for kept, read in pairs:
        kept = gather(resident.resident, kept)
        assert kept.keys() == read.keys()
        for name in kept:
            np.testing.assert_array_equal(kept[name], read[name])
            assert kept[name].dtype == read[name].dtype


@pytest.mark.parametrize("resident", ["always", "never"])
def test_evaluation_batches_hold_every_record_once(splits, resident):
    split = splits(resident, training=False)
    batches = [gather(split.resident, batch) for batch in split.eval_batches(100)]
    assert [len(batch["label"]) for batch in batches] == [100] * 4
    valid = np.concatenate([batch["valid"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])[valid]
    assert valid.sum() == 360
    assert labels.tolist() == [split.source[i][1] for i in range(360)]


def test_threads_do_not_change_streamed_batches(splits, digits_config):
    digits_config.augment.crop_scale = (0.3, 1.0)
    streams = []
    for threads in (1, 4):
        digits_config.data.threads = threads
        split = splits("never")
        order = TrainOrder(len(split), 32, seed=0)
        streams.append(list(split.train_batches(order, range(4, 8))))
    for one, four in zip(*streams, strict=True):
        np.testing.assert_array_equal(one["image"], four["image"])
    assert not np.array_equal(streams[0][0]["image"], streams[0][1]["image"])


def encode(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_decode_gives_upright_rgb():
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[0, 0] = (250, 10, 20)
    np.testing.assert_array_equal(decode_rgb(encode(rgb, "PNG")), rgb)
    grey = decode_rgb(encode(rgb[..., 0], "PNG"))
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., :1], 3, axis=2))
    np.testing.assert_array_equal(
        decode_rgb(encode(rgb, "GIF")), np.array(Image.fromarray(rgb).quantize().convert("RGB"))
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it
    turned = decode_rgb(encode(rgb, "JPEG", quality=100, subsampling=0, exif=exif))
    assert turned.shape == (6, 4, 3)
    assert turned[0, 3, 0] > 150  # from the upper left to the upper right


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(ValueError, match=f"{len(data)} bytes"):
        decode_rgb(data)


@pytest.mark.parametrize("shape", [(8, 8), (9, 30), (31, 7), (100, 64), (5, 5)])
def test_centre_crop_keeps_the_middle(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)] = 255
    crop = centre_crop(image, size=8, resize=10)
    assert crop.shape == (8, 8, 3)
    assert crop[4, 4, 0] == 255
    flipped = centre_crop(image[:, ::-1], size=8, resize=10)
    assert abs(crop.astype(int) - flipped[:, ::-1]).max() <= 130  # within one pixel


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = centre_crop(stripes, 8, 8)
    assert 120 <= crop.min() and crop.max() <= 135


def test_random_resized_crop_covers_the_scales_asked_for():
    # Each pixel tells where it comes from, so the crop's box can be read off its corners.
    rows, columns = np.mgrid[:200, :200]
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        crop = random_resized_crop(image, 32, rng, (0.25, 0.5)).astype(float)
        assert crop.shape == (32, 32, 3)
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) * 32 / 31
        width = (crop[0, -1, 1] - crop[0, 0, 1]) * 32 / 31
        areas.append(height * width / 200**2)
        assert 0.7 < width / height < 1.42
    assert 0.23 < min(areas) < 0.28 and 0.47 < max(areas) < 0.53
    assert 0.35 < np.mean(areas) < 0.40
    # A shape that no box of the ratio fits: the largest centred one.
    sliver = np.zeros((200, 10, 3), np.uint8)
    assert random_resized_crop(sliver, 8, rng, (0.9, 1.0)).shape == (8, 8, 3)


def test_a_record_that_is_no_image_is_named(splits, monkeypatch):
    from train.data.source import Source

    monkeypatch.setattr(Source, "__getitem__", lambda self, index: (b"\xff\xd8broken", 1))
    with pytest.raises(RunError, match=r"record 0 of digits train: 8 bytes"):
        splits("always")


@pytest.mark.parametrize(
    ("name", "split", "error", "message"),
    [
        ("digitz", "train", UsageError, "'digits' or 'tfds:NAME'.*'digitz'"),
        ("tfds:", "train", UsageError, "'tfds:NAME'"),
        ("tfds:cifer10", "train", UsageError, "no data set 'cifer10'"),
        (
            "tfds:imagenet2012",
            "train",
            RunError,
            "train.prepare --dataset=imagenet2012.*ILSVRC2012_img_train",
        ),
        ("tfds:cifar10", "train", RunError, "train.prepare --dataset=cifar10 --data_dir="),
        ("tfds:cifar10:9.9.9", "train", UsageError, "cifar10:9.9.9"),
        ("tfds:cifar10/foo", "train", UsageError, "cifar10/foo"),
        ("tfds:coco", "train", RunError, "coco is not prepared in .* its code needs tensorflow"),
        (
            "digits",
            "trian",
            UsageError,
            "the split .trian.; it has (train, test|test, train)",
        ),
        ("digits", "train[50%:20%]", UsageError, "no images under the split"),
        ("digits", "train[:0]", UsageError, "no images under the split"),
    ],
)
def test_data_that_are_not_there(digits_config, name, split, error, message):
    digits_config.dataset.name = name
    if name == "tfds:coco" and importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed, which this message asks for")
    with pytest.raises(error, match=message) as caught:
        open_source(digits_config.dataset, split)
    assert "\n" not in str(caught.value)


def test_split_syntax_of_tfds(digits_config):
    assert len(open_source(digits_config.dataset, "train[:10%]")) == 144


def test_any_prepared_tfds_set_trains(data_dir, digits_config):
    # The digits under TFDS's own way of finding what is prepared in a folder.
    open_source(digits_config.dataset, "test")
    digits_config.dataset.name = "tfds:sklearn_digits"
    source = open_source(digits_config.dataset, "test")
    assert len(source) == 360 and source.class_names == tuple("0123456789")
    assert cv2.imdecode(np.frombuffer(source[0][0], np.uint8), 0).shape == (8, 8)
