"""Images and labels in arrays: their names, splits and errors."""

import os
import pickle

import numpy as np
import pytest

from tests.train.data.labeled import IMAGES, LABELS, opened
from train.data.findings import inspect_data
from train.data.sources.arrays import arrays_source
from train.runtime.errors import RunError, UsageError


def save(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize(
    ("names", "split", "first"),
    [
        ("x_train y_train x_test y_test", "train", 0),
        ("x_train y_train x_test y_test", "test", 10),
        ("x_train y_train x_test y_test", "val", 10),  # as for folders
        ("train_images train_labels val_images val_labels", "test", 10),
        ("train/X train/Y validation/X validation/Y", "validation[5:]", 15),
        ("image label test-image test-target", "test[50%:]", 15),
        ("image label", "train[10%:]", 3),
        ("image label", "all", 0),
    ],
)
def test_splits_are_found_by_the_names_of_the_arrays(tmp_path, names, split, first):
    values = (IMAGES, LABELS[:, None], IMAGES[10:20], LABELS[10:20].astype(np.uint8))
    path = save(tmp_path, **dict(zip(names.split(), values, strict=False)))
    source = opened("arrays", path, split)
    image, label = source.decode(0)
    np.testing.assert_array_equal(image[..., 1], IMAGES[first])
    assert (label, source.class_names) == (LABELS[first], ("0", "1", "2"))


def test_files_may_be_split_by_folder_or_prefix(tmp_path):
    for split in ("train", "val"):
        np.savez(tmp_path / f"{split}.npz", image=IMAGES, label=LABELS)
        np.save(tmp_path / f"mine_{split}_images.npy", IMAGES[..., None])
        np.save(tmp_path / f"mine_{split}_labels.npy", LABELS)
    (tmp_path / "mine_class_names.txt").write_text("newt\ncat\ndog\n")
    source = opened("arrays", tmp_path / "mine", "val")
    assert source.class_names == ("newt", "cat", "dog") and len(source) == 30
    for file in tmp_path.glob("mine*"):
        file.unlink()
    assert opened("arrays", tmp_path, "val").class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_text_labels_are_names_of_classes(tmp_path, dtype):
    text = np.array(["dog", "cat", "newt"])[LABELS].astype(dtype)
    source = opened("arrays", save(tmp_path, image=IMAGES, label=text))
    assert source.class_names == ("cat", "dog", "newt")
    assert [source[i][1] for i in range(3)] == [1, 0, 2]
    names = np.array(["newt", "cat", "dog"])
    path = save(tmp_path, image=IMAGES, label=text, class_names=names)
    assert [opened("arrays", path)[i][1] for i in range(3)] == [2, 1, 0]


def test_parts_that_overlap_are_reported(tmp_path):
    path = save(tmp_path, image=IMAGES, label=LABELS)
    train, test = (opened("arrays", path, f"train[{part}]") for part in (":60%", "50%:"))
    assert "3 of 15 evaluation images are also training images" in inspect_data(train, test)[0].text
    disjoint = opened("arrays", path, "train[60%:]")
    assert inspect_data(train, disjoint) == [] and len(train) + len(disjoint) == 30


def test_parts_of_sorted_arrays_are_reported(tmp_path):
    path = save(tmp_path, image=IMAGES, label=np.sort(LABELS))
    found = inspect_data(*(opened("arrays", path, f"train[{part}]") for part in (":80%", "80%:")))
    missing, unbalanced = (finding.text for finding in found)
    assert missing == (
        "2 of 3 classes have no image in 'train[80%:]': 0, 1; shuffle the images before using parts"
        " of them"
    )
    assert unbalanced.startswith("the classes are unbalanced: '2' has 4 training images, '0' 10;")


def test_arrays_in_memory_may_differ_in_size():
    source = arrays_source([IMAGES[0], IMAGES[1, :2]], ["b", "a"])
    assert source.class_names == ("a", "b")
    assert [source.decode(i)[0].shape for i in range(2)] == [(5, 6, 3), (2, 6, 3)]
    assert len(arrays_source(IMAGES, LABELS, split="train[:20%]")) == 6


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (IMAGES / 255, LABELS, None, r"must be uint8, not float64; .*\(255 \* images\)\.round"),
        (IMAGES.astype(int), LABELS, None, "must be uint8, not int64"),
        (IMAGES[0], LABELS, None, r"must have the shape \(N, H, W, 3\).*not \(5, 6\)"),
        (np.zeros((30, 3, 8, 8), "u1"), LABELS, None, r"images\.transpose\(0, 2, 3, 1\)"),
        (IMAGES[:0], LABELS[:0], None, "has no images"),
        (IMAGES, LABELS[:9], None, "30 images but 9 labels"),
        (IMAGES, LABELS / 2, None, r"must be integers or text, not float64"),
        (IMAGES, np.eye(3)[LABELS] / 2, None, "must be zeros and ones, not '0.5'"),
        (IMAGES, np.eye(3)[LABELS], ["a", "b"], "columns for 3 classes, but there are 2 names"),
        (IMAGES, LABELS + 1, None, "no image has the label 0; renumber"),
        (IMAGES, LABELS - 1, None, "has the label -1"),
        (IMAGES, LABELS, ["a", "b"], "has the label 2, but names of only 2 classes"),
        (IMAGES, LABELS, ["a", "b", "a"], "several classes named a"),
        (IMAGES, LABELS.astype(str), ["0", "1"], "no names of classes: '2'"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, images, labels, names, message):
    with pytest.raises(UsageError, match=message):
        arrays_source(images, labels, names)
    more = {} if names is None else {"class_names": np.array(names)}
    with pytest.raises(UsageError, match=message) as caught:
        opened("arrays", save(tmp_path, image=images, label=labels, **more))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([*"ab" * 14, "a", 7], "are text and other values, such as 7; use text or integers"),
        (np.ma.masked_equal(LABELS, 2), "some labels of the data are masked"),
    ],
)
def test_labels_are_not_converted_in_silence(labels, message):
    with pytest.raises(UsageError, match=message):
        arrays_source(IMAGES, labels)


@pytest.mark.parametrize(
    ("arrays", "split", "message"),
    [
        ({"arr_0": IMAGES, "arr_1": LABELS}, "train", r"no arrays of images among arr_0 \(30, 5"),
        ({"x": IMAGES, "image": IMAGES, "y": LABELS}, "train", "several arrays.*image_key"),
        ({"x": IMAGES}, "train", "images but no labels"),
        ({"x": IMAGES, "y": LABELS}, "test", r"no split 'test'.*train_split='train\[:80%\]'"),
        ({"x_a": IMAGES, "y_a": LABELS}, "train", "no split 'train'; it has a"),
        ({"x": IMAGES, "y": LABELS}, "train[30:]", "has no images"),
        ({"x": IMAGES, "y": LABELS}, "train+test", "must be a name or a part"),
    ],
)  # fmt: skip
def test_missing_arrays_and_splits_are_explained(tmp_path, arrays, split, message):
    with pytest.raises(UsageError, match=message):
        opened("arrays", save(tmp_path, **arrays), split)


def test_the_arrays_can_be_chosen(tmp_path):
    path = save(tmp_path, x=IMAGES, image=IMAGES[:, ::-1], fine_label=LABELS, coarse_label=LABELS)
    source = opened("arrays", path, image_key="image", label_key="fine_label")
    np.testing.assert_array_equal(source.decode(0)[0][..., 0], IMAGES[0, ::-1])


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def objects(path):
    np.savez(path, image=np.array([Bomb(), None]), label=LABELS)


def pickled(path):
    path.write_bytes(pickle.dumps(Bomb()))


def bomb(path):
    images = np.zeros((10_000, 100, 100), np.uint8)
    np.savez_compressed(path, image=images, label=np.zeros(10_000, int))


def cut(path):
    np.savez(path, image=IMAGES, label=LABELS)
    path.write_bytes(path.read_bytes()[:-60])


def flipped(path):
    np.savez_compressed(path, image=IMAGES, label=LABELS)
    data = bytearray(path.read_bytes())
    data[200:300] = bytes(100)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (objects, "image.npy contains Python objects"),
        (pickled, "not a zip file"),
        (bomb, "bytes but its arrays claim 100,080,000"),
        (cut, "not a zip file"),
        (flipped, "Error -3 while decompressing|Bad CRC|invalid"),
        (os.mkfifo, "Not a regular file"),
        (lambda path: None, "does not exist"),
    ],
)
def test_hostile_files_end_in_one_line(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.npz")
    with pytest.raises(RunError, match=message) as caught:
        opened("arrays", tmp_path / "a.npz").decode(0)
    assert "\n" not in str(caught.value) and "pickle" not in str(caught.value)
    assert not (tmp_path / "unpickled").exists()


def test_a_truncated_file_is_an_error(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    source = opened("arrays", tmp_path)
    file = tmp_path / "images.npy"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RunError, match="truncated while in use"):
        source[29]
    with pytest.raises(RunError, match=r"images\.npy is truncated"):
        opened("arrays", tmp_path)


def test_names_of_classes_are_texts(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    names = tmp_path / "class_names.txt"
    names.write_text("cat\ndog\nnewt\n\n \n")
    assert opened("arrays", tmp_path).class_names == ("cat", "dog", "newt")
    names.write_text("cat\n\nnewt\n")
    with pytest.raises(UsageError, match=r"the name of class 1 of .* is empty"):
        opened("arrays", tmp_path)
    with pytest.raises(UsageError, match="must be a list of names, not 'abc'"):
        arrays_source(IMAGES, LABELS, class_names="abc")
