"""Records whose images are arrays instead of encoded bytes."""

import sys

import cloudpickle
import numpy as np
import pytest

from flax_resnet.decoding import ImageDecodeError
from tests.train.data.labeled import opened
from train.data.images import encode_png
from train.data.source import DataSource
from train.data.sources.arrays import arrays_source
from train.data.sources.image_folder import open_folder
from train.runtime.errors import RunError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def decoded(image):
    return DataSource("own", "train", ("a", "b"), [{"image": image, "label": 1}]).decode(0)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., 0], PIXELS[::-1, ::2]])
def test_an_array_gives_the_pixels_of_its_png(pixels):
    expected, label = decoded(encode_png(pixels))
    image, _ = decoded(pixels)
    np.testing.assert_array_equal(image, expected)
    assert (image.dtype, label) == (np.uint8, 1)


def test_gray_may_have_an_axis_of_channels():
    np.testing.assert_array_equal(decoded(PIXELS[..., :1])[0], decoded(PIXELS[..., 0])[0])


@pytest.mark.parametrize(
    "pixels", [PIXELS / 255, PIXELS[0, 0], PIXELS[..., :2], PIXELS[:0], np.zeros((3, 4, 5), "u1")]
)
def test_other_arrays_are_corrupt_records(pixels):
    with pytest.raises(ImageDecodeError, match="array"):
        decoded(pixels)


class Failing(list):
    """Records of which some cannot be read."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if record is None:
            raise OSError("gone")
        return record


@pytest.mark.parametrize(("count", "missing"), [(5, (0, 1)), (300, (7, 255, 256, 299))])
def test_labels_of_records_are_read_without_images(count, missing):
    """A record that cannot be read counts as the next one, which the reader uses in its place."""
    labels = np.random.default_rng(0).integers(0, 9, count)
    records = Failing({"image": b"no image", "label": label} for label in labels)
    for index in missing:
        records[index] = None
    source = DataSource("own", "train", tuple("abcdefghi"), records)
    readable = [i for i in range(count) if i not in missing]
    expected = [labels[next((j for j in readable if j >= i), readable[0])] for i in range(count)]
    assert source.all_labels().dtype == np.int32 and source.has_cheap_labels
    np.testing.assert_array_equal(source.all_labels(), expected)


def test_labels_of_no_readable_record_are_an_error():
    with pytest.raises(RunError, match="none of the 2 records can be read"):
        DataSource("own", "train", ("a",), Failing([None, None])).all_labels()


def test_records_with_an_array_of_labels_are_not_read(tmp_path, data_dir):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / f"{number}.png").write_bytes(b"not an image")
    folder = open_folder(str(tmp_path), "all", 0.2, 0)
    arrays = arrays_source(np.zeros((10, 4, 4), np.uint8), np.arange(10) // 5, split="train[2:8]")
    for source, expected in ((folder, [0] * 5 + [1] * 5), (arrays, [0, 0, 0, 1, 1, 1])):
        assert source.has_cheap_labels
        np.testing.assert_array_equal(source.all_labels(), expected)
    digits = opened("digits", data_dir, "train[:50]")
    np.testing.assert_array_equal(digits.all_labels(), [digits[i][1] for i in range(50)])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3, np.float32), r"shape \(2,\), not float32 \(3,\)"),
        (np.ones(2), "must be float32 .* not float64"),
        (np.float32([1, -1]), "0 or more, and some above 0, not -1.0 of record 1"),
        (np.float32([np.nan, 1]), "not nan of record 0"),
        (np.float32([0, 0]), "not all 0"),
    ],
)
def test_invalid_weights_are_usage_errors(weights, message):
    records = [{"image": PIXELS, "label": 0}] * 2
    with pytest.raises(UsageError, match=message):
        DataSource("own", "train", ("a",), records, weights=weights)


def source_of(*records, classes=("a", "b", "c"), **fields):
    return DataSource("own", "train", classes, records, **fields)


GOOD = {"image": PIXELS, "label": 0}


@pytest.mark.parametrize(
    ("record", "message", "is_label"),
    [
        (
            GOOD | {"label": 7},
            r"1 \('y.png'\) of own train has the label 7; the source has 3 c",
            True,
        ),
        (GOOD | {"label": -1}, "has the label -1; the source has 3 classes", True),
        (GOOD | {"label": 1.5}, "has the label 1.5; it must be an integer", True),
        (GOOD | {"label": "a"}, "has the label 'a'; it must be an integer", True),
        (GOOD | {"label": np.array([1])}, r"has the label array\(\[1\]\); it must be", True),
        (GOOD | {"image": "a.png"}, r"1 \('y.png'\) of .* has an image of the type str", False),
        ((PIXELS, 1), "a dictionary with the keys 'image' and 'label', not .* type tuple", True),
        ({"image": PIXELS}, "keys 'image' and 'label', not one with 'image'", True),
    ],
)
def test_a_wrong_record_is_an_error_that_names_it(record, message, is_label):
    source = source_of(GOOD, record, names=("x.png", "y.png"))
    source.decode(0)
    for read in [lambda: source.decode(1), source.all_labels][: 1 + is_label]:
        with pytest.raises(RunError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [1, np.int64(1), np.uint8(1), np.array(1), True, np.True_])
def test_a_label_may_have_any_type_of_integers(label):
    assert source_of({"image": PIXELS, "label": label}).decode(0)[1] == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 3], "record 1 of own train has the label 3"), ([0], r"\(2,\)"), ([0.5, 1], "float64")],
)
def test_an_array_of_wrong_labels_is_an_error(labels, message):
    class Records(list):
        def all_labels(self):
            return labels

    with pytest.raises(RunError, match=message):
        DataSource("own", "train", ("a", "b", "c"), Records([{}, {}])).all_labels()


@pytest.mark.parametrize("error", [KeyError("no key"), SystemExit(3)])
def test_an_error_of_own_records_names_the_record_and_the_place(error):
    class Records(list):
        def __getitem__(self, index):
            if index == 1:
                raise error
            return super().__getitem__(index)

    source = DataSource("own", "train", ("a",), Records([{"image": PIXELS, "label": 0}] * 2))
    message = (
        rf"record 1 of own train cannot be read: {type(error).__name__}.*test_source\.py, line"
    )
    with pytest.raises(RunError, match=message) as caught:
        source.decode(1)
    assert caught.value.__cause__ is error


def test_an_error_of_own_records_in_a_worker_process_names_the_record():
    class Records(list):
        def __getitem__(self, index):
            sys.exit(3)

    source = DataSource("own", "train", ("a",), Records([{}]))
    # By value, as the classes of a recipe are sent.
    copy = cloudpickle.loads(cloudpickle.dumps(source))
    with pytest.raises(RunError, match=r"record 0 .* read: SystemExit: 3 \(the recipe, line \d+\)"):
        copy.decode(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ()}, r"class names of own train must be .* not \(\)"),
        ({"classes": "abc"}, "not 'abc'"),
        ({"classes": (1, 2)}, "must be a sequence of one text per class"),
        ({"names": ["x"]}, "2 records but 1 names"),
    ],
)
def test_invalid_fields_are_usage_errors(fields, message):
    with pytest.raises(UsageError, match=message):
        source_of(*[{"image": PIXELS, "label": 0}] * 2, **fields)
