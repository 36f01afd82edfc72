"""Stratified folds: of images, of groups, and of every data source with cheap labels."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tests.train.data.labeled import opened
from tests.train.pictures import encode, photograph
from train.config.loading import default_config, load_config
from train.data.folds import assign_folds
from train.data.splits import HELD_OUT, evaluation_split, parse_fold
from train.runtime.errors import UsageError

MANY = settings(max_examples=150, deadline=None, derandomize=True)


def counts_in_folds(folds, labels, count):
    """Return the numbers of images by fold and class."""
    table = np.zeros((count, labels.max() + 1), int)
    np.add.at(table, (folds, labels), 1)
    return table


@st.composite
def data_sets(draw):
    """Draw labels, groups, number of folds and seed."""
    count = draw(st.integers(2, 7))
    num_groups = draw(st.integers(count, 40))
    size = draw(st.integers(num_groups, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = np.concatenate([np.arange(num_groups), rng.integers(0, num_groups, size - num_groups)])
    labels = rng.integers(0, draw(st.integers(1, 6)), size)
    if draw(st.booleans()):  # groups of one class, as patients with a disease are
        labels = labels[groups]
    return labels.astype(np.int32), groups, count, draw(st.integers(0, 2**32 - 1))


@MANY
@given(data_sets())
def test_without_groups_folds_are_as_stratified_as_can_be(data):
    labels, _, count, seed = data
    names = [f"{i}.png" for i in range(len(labels))]
    folds = assign_folds(names, labels, None, count, seed)
    table = counts_in_folds(folds, labels, count)
    assert table.sum() == len(labels) and table.sum(axis=1).min() >= 1
    assert np.ptp(table, axis=0).max() <= 1 and np.ptp(table.sum(axis=1)) <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        if max(np.bincount(labels)) >= count:
            reference = np.empty(len(labels), int)
            for fold, (_, held) in enumerate(StratifiedKFold(count).split(labels, labels)):
                reference[held] = fold
            assert np.array_equal(
                np.sort(table, axis=0), np.sort(counts_in_folds(reference, labels, count), axis=0)
            )


@MANY
@given(data_sets(), st.randoms(use_true_random=False))
def test_groups_stay_together_whatever_the_order_of_the_images(data, random):
    labels, groups, count, seed = data
    names, texts = [f"{i}.png" for i in range(len(labels))], [f"g{group}" for group in groups]
    folds = assign_folds(names, labels, texts, count, seed)
    assert folds.min() >= 0 and folds.max() < count and len(np.unique(folds)) == count
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    order = list(range(len(labels)))
    random.shuffle(order)
    again = assign_folds(
        [names[i] for i in order], labels[order], [texts[i] for i in order], count, seed
    )
    assert np.array_equal(again, folds[order])


def test_groups_are_as_stratified_as_by_scikit_learn():
    def unevenness(folds, labels, count):
        table = counts_in_folds(folds, labels, count)
        return (table / table.sum(axis=0)).std(axis=0).mean()

    ours, theirs = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        groups = rng.zipf(1.7, 600).clip(max=60)
        labels = (rng.random((61, 3))[groups].argmax(axis=1) + (rng.random(600) < 0.2)) % 3
        texts = list(map(str, groups))
        folds = assign_folds(list(map(str, range(600))), labels, texts, 5, seed)
        ours.append(unevenness(folds, labels, 5))
        reference = np.empty(600, int)
        for fold, (_, held) in enumerate(StratifiedGroupKFold(5).split(labels, labels, groups)):
            reference[held] = fold
        theirs.append(unevenness(reference, labels, 5))
    assert np.mean(ours) <= 1.05 * np.mean(theirs), (np.mean(ours), np.mean(theirs))


@pytest.mark.parametrize(
    "fold", ["0/5", "6/5", "1/1", "2", "a/b", "1/5 ", "-1/5", "1/100000", "1/²"]
)
def test_folds_that_do_not_exist(fold):
    with pytest.raises(UsageError, match="must be a fold such as '2/5'"):
        parse_fold(fold)
    with pytest.raises(UsageError, match="must be a fold such as '2/5'"):
        load_config("resnet18_folder", [("dataset.fold", fold)])


def test_too_few_images_or_groups():
    with pytest.raises(UsageError, match="3 folds need as many images, but there are 2"):
        assign_folds(["a", "b"], np.array([0, 1]), None, 3, 0)
    with pytest.raises(UsageError, match="3 folds need as many groups, but there are 2"):
        assign_folds(list("abcd"), np.array([0, 1, 0, 1]), list("xxyy"), 3, 0)


def write_images(folder, test=()):
    """Write 30 images of 10 patients and two classes, and perhaps others in a folder test."""
    for i in range(30):
        path = folder / "ab"[i % 3 == 0] / f"p{i % 10}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photograph(i, 6, 6), "PNG"))
    rows = [f"{path},{path.parent.name},{path.name[:2]}" for path in folder.glob("?/*.png")]
    (folder / "t.csv").write_text("\n".join(["image,label,group", *rows]))


@pytest.mark.parametrize("name", ["folder", "table"])
def test_every_image_of_a_source_is_held_out_once(name, tmp_path):
    write_images(tmp_path)
    keys = {"folder": {"group_pattern": "(p[0-9])_"}, "table": {"labels": str(tmp_path / "t.csv")}}
    held_out = []
    for number in range(1, 4):
        train, held = (
            opened(name, tmp_path, split, fold=f"{number}/3", **keys[name])
            for split in ("train", HELD_OUT)
        )
        assert not {*train.names} & {*held.names} and len(train) + len(held) == 30
        assert not {*train.groups} & {*held.groups}
        assert (held.split, train.split) == (HELD_OUT, "train")
        assert held.is_held_out and not train.is_held_out
        assert train.fingerprint != held.fingerprint
        for source in (train, held):
            labels = [source[i][1] for i in range(len(source))]
            assert labels == source.all_labels().tolist()
            assert [source.class_names[label] for label in labels] == [
                file.replace(str(tmp_path), "").lstrip("/")[0] for file in source.names
            ]
            assert source.groups == tuple(file[file.index("p", -9) :][:2] for file in source.names)
        held_out += held.names
    assert len(held_out) == len({*held_out}) == 30
    with pytest.raises(UsageError, match="the split 'held_out'"):
        opened(name, tmp_path, "val", fold="1/3", **keys[name])
    assert len(opened(name, tmp_path, "all", fold="1/3", **keys[name])) == 30


def test_test_images_are_in_no_fold(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    (tmp_path / "test" / "t.csv").rename(tmp_path / "t.csv")
    train, held, test = (
        opened("folder", tmp_path, split, fold="1/5") for split in ("train", HELD_OUT, "test")
    )
    assert (len(train), len(held), len(test)) == (24, 6, 30)
    assert all(name.startswith("train/") for name in (*train.names, *held.names))
    dataset = default_config().dataset
    assert evaluation_split(dataset) == "test"
    dataset.fold = "1/5"
    assert evaluation_split(dataset) == HELD_OUT


def test_arrays_and_the_digits_have_folds(tmp_path, data_dir):
    images = np.arange(30 * 12, dtype=np.uint8).reshape(30, 3, 4)
    np.savez(tmp_path / "x.npz", image=images, label=np.arange(30) % 3)
    sources = [
        opened("arrays", tmp_path / "x.npz", split, fold="2/5") for split in ("train", HELD_OUT)
    ]
    assert [np.bincount(s.all_labels()).tolist() for s in sources] == [[8] * 3, [2] * 3]
    seen = sorted(int(source[i][0][0, 0]) for source in sources for i in range(len(source)))
    assert seen == sorted(int(image[0, 0]) for image in images)
    keys = {"train_split": "train[:200]", "fold": "10/10"}
    train, held = (opened("digits", data_dir, split, **keys) for split in ("train[:200]", HELD_OUT))
    assert (len(train), len(held)) == (180, 20)
    assert [train[i][1] for i in (0, 7)] == train.all_labels()[[0, 7]].tolist()
    assert np.bincount(held.all_labels(), minlength=10).min() >= 1
