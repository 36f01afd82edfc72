"""Images with any number of classes: numbers of sets, splits and folds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from train.config.loading import default_config
from train.data.findings import inspect_data
from train.data.folds import assign_folds
from train.data.hold_out import hold_out
from train.data.label_sets import merge_rare, number_sets
from train.data.source import DataSource
from train.data.sources.arrays import arrays_source
from train.data.sources.given_source import as_source
from train.data.splits import HELD_OUT_PART, TRAINING_PART
from train.runtime.errors import UsageError

MATRICES = hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 20)))


@settings(max_examples=60, deadline=None)
@given(MATRICES)
def test_sets_are_numbered_without_loss(matrix):
    labels, sets = number_sets(matrix)
    np.testing.assert_array_equal(sets[labels], matrix)
    assert len(sets) == len({tuple(row) for row in matrix.tolist()})


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int32, st.integers(2, 40), elements=st.integers(0, 12)))
def test_no_stratum_has_a_single_image(labels):
    strata = merge_rare(labels)
    assert np.bincount(strata).min() >= 2
    counts = np.bincount(labels)
    for label in np.flatnonzero(counts > 1):  # images of one set stay together
        assert len({*strata[labels == label].tolist()}) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_every_image_is_in_one_part_and_groups_are_whole(seed, grouped):
    rng = np.random.default_rng(seed)
    targets = (rng.random((60, 4)) < 0.4).astype(np.uint8)
    names = [f"{i}.png" for i in range(60)]
    groups = [f"p{g}" for g in rng.integers(0, 12, 60)] if grouped else None
    folds = assign_folds(names, targets, groups, 3, seed)
    parts = [
        hold_out(part, names, targets, groups, list("abcd"), 0.25, seed)
        for part in (TRAINING_PART, HELD_OUT_PART)
    ]
    assert sorted(np.concatenate(parts)) == list(range(60)) and all(len(p) for p in parts)
    if grouped:
        sides = [{groups[i] for i in part} for part in parts]
        assert not sides[0] & sides[1]
        assert all(len({*folds[np.array(groups) == g].tolist()}) == 1 for g in groups)
    else:
        assert np.bincount(folds).tolist() == [20, 20, 20]
        shares = np.array([targets[folds == f].mean(axis=0) for f in range(3)])
        # Of each of the 16 sets, a fold has at most one image more or less than another.
        assert np.ptp(shares, axis=0).max() <= 8 / 20 + 1e-9


def test_arrays_of_zeros_and_ones_are_sets_of_classes():
    images = np.zeros((5, 4, 4, 3), np.uint8)
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]])
    source = arrays_source(images, labels, ["a", "b", "c"])
    np.testing.assert_array_equal(source.targets(source.all_labels()), labels)
    assert source.class_counts().tolist() == [2, 3, 3]
    names = [source.label_name(label) for label in source.all_labels()]
    assert names == ["a", "b|c", "", "b|c", "a|b|c"]
    part = source.select(np.array([1, 4]))
    np.testing.assert_array_equal(part.targets(part.all_labels()), labels[[1, 4]])
    assert arrays_source(images, labels.astype(float)).class_names == ("0", "1", "2")
    changed = arrays_source(images, 1 - labels, ["a", "b", "c"])
    assert changed.fingerprint != source.fingerprint


def test_records_with_zeros_and_ones_equal_arrays():
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)
    labels = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]])
    records = [{"image": i, "label": row.tolist()} for i, row in zip(images, labels, strict=True)]
    config = default_config()
    config.dataset.label_key, names = "label", ["a", "b", "c"]
    source = as_source(records, "train", config.dataset, names)
    arrays = arrays_source(images, labels, names)
    np.testing.assert_array_equal(source.targets(source.all_labels()), labels)
    assert (source.class_names, source.fingerprint) == (arrays.class_names, arrays.fingerprint)


def test_lists_of_different_lengths_are_explained():
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), [["a", "b"], ["a"]]
    records = [{"image": i, "label": row} for i, row in zip(images, labels, strict=True)]
    for data in ((images, labels), records):
        with pytest.raises(UsageError, match=r"of different lengths.*zeros and ones, a row \(K,\)"):
            as_source(data, "train", default_config().dataset, ["a", "b"])


def test_wrong_label_sets_are_refused():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    for labels in ([[0, 2], [1, 0]], [[0, np.nan], [1, 0]], [["a", "b"], ["c", "d"]]):
        with pytest.raises(UsageError, match="must be zeros and ones, not"):
            arrays_source(images, np.array(labels))
    records = [{"image": images[0], "label": 0}]
    for sets in (np.ones((1, 3), bool), np.ones((1, 2), int), np.ones((0, 2), bool)):
        with pytest.raises(UsageError, match=r"must be bool of the shape \(S, 2\)"):
            DataSource("own", "train", ("a", "b"), records, label_sets=sets)


def test_images_of_one_class_each_are_reported():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    single = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1, 2]]
    several = single | [[0, 0, 1]]

    def kinds(labels):
        train, val = (arrays_source(images[s::2], labels[s::2], split=str(s)) for s in (0, 1))
        return {finding.kind for finding in inspect_data(train, val)}

    assert "single classes" in kinds(single)
    assert "single classes" not in kinds(several)
    assert "single classes" not in kinds(single * [[1, 1, 0]])  # some have none
