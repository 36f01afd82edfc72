"""The digits and other TFDS data sets."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.conftest import DIGITS
from train.config.loading import check_config
from train.data.datasets import open_source
from train.data.loader import DataLoader
from train.data.registries import SOURCES
from train.data.source import DataSource
from train.runtime.errors import RunError, UsageError


@pytest.fixture
def splits(digits_config):
    """A function that opens a split of the digits, cached or streamed."""

    def make(cache_on_device, training=True, **dataset):
        digits_config.loader.cache_on_device = cache_on_device
        digits_config.dataset.update(dataset)
        return DataLoader(digits_config, "train" if training else "test", training).load()

    return make


def test_digits_are_those_of_scikit_learn_with_the_last_360_for_testing(splits):
    pixels, labels = load_digits(return_X_y=True)
    expected = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    for training, images, targets in (
        (True, expected[:1437], labels[:1437]),
        (False, expected[1437:], labels[1437:]),
    ):
        data = splits("always", training).cached
        assert data["image"].shape == (len(images), 8, 8, 3)

        # TFDS shuffles records when it writes them.
        def in_order(images, labels):
            pairs = zip(images, labels, strict=True)
            return sorted((int(label), image.tobytes()) for image, label in pairs)

        assert in_order(data["image"][..., 1], data["label"]) == in_order(images, targets)


def test_reading_digits_needs_no_tensorflow_and_no_second_preparation(data_dir):
    code = (
        "import sys; from train.config.loading import default_config;"
        "from train.data.datasets import open_source; c = default_config();"
        f"c.dataset.data_dir = {data_dir!r};"
        "s = open_source(c.dataset, 'test'); s[3];"
        "print(len(s), 'tensorflow' in sys.modules, 'sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    again = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert again.stdout.split() == [b"360", b"False", b"False"]


@pytest.mark.parametrize(
    ("name", "split", "error", "message"),
    [
        (
            "digitz",
            "train",
            UsageError,
            "'digitz': unknown data source.*mean 'digits'.*valid are digits, folder, ",
        ),
        ("tfds:", "train", UsageError, "must be tfds:NAME, such as"),
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
            "the split .trian.; its splits are (train, test|test, train)",
        ),
        ("digits", "train[50%:20%]", UsageError, "no images in the split"),
        ("digits", "train[:0]", UsageError, "no images in the split"),
    ],
)
def test_missing_data_are_reported_in_one_line(digits_config, name, split, error, message):
    digits_config.dataset.name = name
    if name == "tfds:coco" and importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed, so the message differs")
    with pytest.raises(error, match=message) as caught:
        open_source(digits_config.dataset, split)
    assert "\n" not in str(caught.value)


def test_digits_support_the_split_syntax_of_tfds(digits_config):
    assert len(open_source(digits_config.dataset, "train[:10%]")) == 144


def test_a_prepared_tfds_data_set_opens_by_name(data_dir, digits_config):
    # The digits as TFDS finds them in the directory.
    open_source(digits_config.dataset, "test")
    digits_config.dataset.name = "tfds:sklearn_digits"
    source = open_source(digits_config.dataset, "test")
    assert len(source) == 360 and source.class_names == tuple("0123456789")
    assert source.decode(0)[0].shape == (8, 8, 3)


def test_statistics_are_those_of_all_pixels(data_dir, commands):
    pixels = load_digits().data[:1437]
    pixels = np.rint(pixels * (255 / 16)) / 255
    run = commands.run(
        "train.statistics", "--config", DIGITS, f"--config.dataset.data_dir={data_dir}",
        "--config.dataset.image_size=8",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    mean, std = (line.partition(" = ")[2] for line in run.stdout.splitlines()[-2:])
    assert eval(mean) == pytest.approx([pixels.mean()] * 3, abs=1e-4)
    assert eval(std) == pytest.approx([pixels.std()] * 3, abs=1e-4)


def test_own_sources_get_an_absolute_folder_and_their_argument(digits_config, monkeypatch):
    def own(dataset, split):
        return results.pop(0)(dataset, split)

    def source(dataset, split):
        records = [{"image": np.zeros((2, 2), np.uint8), "label": 0}]
        return DataSource(f"{dataset.name} {dataset.data_dir}", split, ("a",), records)

    results = [source, lambda *_: [1, 2], lambda *_: DataSource("own", "train", ("a",), [])]
    monkeypatch.setitem(SOURCES._entries, "own", SOURCES._entries["folder"]._replace(part=own))
    digits_config.dataset.update(name="own:one:two", data_dir="here")
    check_config(digits_config)
    assert open_source(digits_config.dataset, "train").name == f"own:one:two {os.getcwd()}/here"
    assert digits_config.dataset.data_dir == "here"
    for message in ("returned an object of type list", "split 'train' of 'own:one:two' has no"):
        with pytest.raises(UsageError, match=message):
            open_source(digits_config.dataset, "train")


def test_keys_that_a_source_does_not_use_are_refused(digits_config):
    for name in ("digits", "folder"):
        digits_config.dataset.update(name=name, label_key="fine")
        with pytest.raises(UsageError, match="label_key='fine' have no meaning for"):
            open_source(digits_config.dataset, "train")
    for name in ("digits:1", "folder:x", "arrays:x", "webdataset:x"):
        digits_config.dataset.update(name=name, label_key="")
        with pytest.raises(UsageError, match=f"'{name[:-2]}', without an argument, not '{name}'"):
            open_source(digits_config.dataset, "train")
    digits_config.dataset.name = "array"
    with pytest.raises(UsageError, match=r"config.dataset.name must be 'digits' or .*not 'array'"):
        check_config(digits_config)
