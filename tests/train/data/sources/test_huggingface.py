"""Hugging Face data sets: where they are found, their columns and labels."""

import numpy as np
import pytest

from tests.train.data.labeled import IMAGES, LABELS, huggingface, opened
from train.data.findings import inspect_data
from train.data.images import encode_png
from train.data.sources.huggingface import huggingface_source
from train.runtime.errors import RunError, UsageError

datasets = pytest.importorskip("datasets")
NAMES = ("cat", "dog", "newt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with data saved by ``save_to_disk`` and as Parquet."""
    folder = tmp_path_factory.mktemp("hf")
    data = huggingface(IMAGES, LABELS, NAMES)
    datasets.DatasetDict(train=data, validation=data.select(range(9, 20))).save_to_disk(
        str(folder / "saved")
    )
    (folder / "parquet").mkdir()
    data.to_parquet(str(folder / "parquet/train.parquet"))
    return folder


@pytest.mark.parametrize(
    ("name", "place", "split", "first"),
    [
        ("hf", "saved", "train", 0),
        ("hf", "saved", "test[5:]", 14),
        ("hf:{}/saved", "", "validation", 9),
        ("hf:{}/parquet", "cache", "train[50%:]", 15),
    ],
)
def test_data_are_loaded_from_a_folder(saved, name, place, split, first):
    data_dir = saved / place if place else ""
    source = opened(name.format(saved), data_dir, split)
    image, label = source.decode(0)
    np.testing.assert_array_equal(image[..., 2], IMAGES[first])
    assert (label, source.class_names) == (LABELS[first], NAMES)


@pytest.mark.parametrize(
    ("name", "place", "error", "message"),
    [
        ("hf", "", UsageError, "must be 'hf:NAME'"),
        ("hf:nobody/nothing", "", RunError, "cannot load the Hugging Face data set 'nobody/noth"),
        ("hf", "none", RunError, "cannot load the Hugging Face data set '.*none'"),
        ("hf:{}/parquet/train.parquet", "", UsageError, "is a file; name the folder of the data"),
        ("hf:{}/saved:large", "", UsageError, "saved data set, which has no configuration 'large'"),
    ],
)
def test_missing_data_end_in_one_line(saved, name, place, error, message):
    with pytest.raises(error, match=message) as caught:
        opened(name.format(saved), saved / place if place else "")
    assert "\n" not in str(caught.value)


def table(**columns):
    features = datasets.Features({"img": datasets.Image()} | {k: v[0] for k, v in columns.items()})
    images = [{"bytes": encode_png(image), "path": f"{n}.png"} for n, image in enumerate(IMAGES)]
    values = {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict({"img": images, **values}, features=features)


INT, TEXT = datasets.Value("int64"), datasets.Value("string")


def test_columns_are_detected_or_chosen():
    words = [NAMES[label] for label in LABELS]
    numbers = LABELS.tolist()
    source = huggingface_source(table(label=(TEXT, words)).with_format("numpy").shuffle(seed=0))
    assert source.class_names == NAMES
    order = [int(source.record_name(i).removesuffix(".png")) for i in range(30)]
    assert [source[i][1] for i in range(30)] == [LABELS[i] for i in order] and order[0] != 0
    data = table(fine=(INT, numbers), coarse=(datasets.ClassLabel(names=["a", "b"]), [0, 1] * 15))
    assert huggingface_source(data).class_names == ("a", "b")
    assert huggingface_source(data, label_key="fine").class_names == ("0", "1", "2")
    assert huggingface_source(data, label_key="fine", class_names=NAMES).class_names == NAMES
    for key, message in (("none", "no column of labels 'none' among img"), ("img", "'img' among")):
        with pytest.raises(UsageError, match=message):
            huggingface_source(data, label_key=key)
    with pytest.raises(UsageError, match="no column of labels among"):
        huggingface_source(table(kind=(INT, numbers)))
    with pytest.raises(UsageError, match="several columns of labels"):
        two = datasets.ClassLabel(names=list(NAMES))
        huggingface_source(table(fine=(two, numbers), coarse=(two, numbers)))
    with pytest.raises(UsageError, match="1 images without a label"):
        huggingface_source(table(label=(INT, [None, *numbers[1:]])))
    with pytest.raises(UsageError, match="random access"):
        huggingface_source(data.to_iterable_dataset())


def test_splits_of_a_program_are_compared_by_their_images():
    """Disjoint data sets do not overlap, though nothing names them; copies are found."""
    data = table(label=(INT, LABELS.tolist()))
    train = huggingface_source(data.select(range(20)), "train")
    test = huggingface_source(data.select(range(20, 30)), "test")
    leaky = huggingface_source(data.select(range(18, 30)), "test")
    assert not [one for one in inspect_data(train, test) if one.kind in ("overlap", "leak")]
    assert [one.count for one in inspect_data(train, leaky) if one.kind == "leak"] == [2]
    assert train.fingerprint != test.fingerprint


def test_lists_of_classes_are_sets_of_classes():
    feature = datasets.Sequence(datasets.ClassLabel(names=list(NAMES)))
    lists = [[k for k in range(3) if number >> k & 1][::-1] for number in range(30)]
    source = huggingface_source(table(label=(feature, lists)))
    expected = [[number >> k & 1 for k in range(3)] for number in range(30)]
    np.testing.assert_array_equal(source.targets(source.all_labels()), expected)
    assert source.class_names == NAMES
    assert source.label_name(source[5][1]) == "cat|newt" and source.label_name(source[8][1]) == ""
    other = huggingface_source(table(label=(feature, [[0], *lists[1:]])))
    assert other.fingerprint != source.fingerprint
    with pytest.raises(UsageError, match="the label -1 among those of an image, but 3 classes"):
        huggingface_source(table(label=(feature, [[-1], *lists[1:]])))
    with pytest.raises(UsageError, match="1 images without a label"):
        huggingface_source(table(label=(feature, [None, *lists[1:]])))
