"""Confusion matrices by their cells: order and worst pairs."""

import numpy as np
import pytest
import sklearn.metrics

from train.reporting import confusions
from train.reporting.confusions import Confusions, clustered_order, matrix_cells


def planted(classes, group, seed=0):
    """Return a matrix whose confusions are mostly within shuffled groups, and the groups."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(classes) // group
    matrix = np.diag(rng.integers(30, 60, classes))
    for label in range(classes):
        others = np.flatnonzero((groups == groups[label]) & (np.arange(classes) != label))
        matrix[label, others] = rng.integers(1, 9, len(others))
    matrix[0, groups != groups[0]] = rng.random((groups != groups[0]).sum()) < 0.05
    return matrix, groups


@pytest.mark.parametrize(("classes", "group"), ((24, 4), (200, 5), (600, 10)))
def test_confused_classes_lie_side_by_side(classes, group):
    matrix, groups = planted(classes, group)
    order = clustered_order(matrix.sum(axis=1).tolist(), matrix_cells(matrix))
    assert sorted(order) == list(range(classes))
    changes = np.count_nonzero(np.diff(groups[order]))
    assert changes == classes // group - 1  # each group is a block


def test_classes_without_confusions_come_last_in_their_order():
    matrix = np.diag([5, 5, 5, 5, 0, 5])
    matrix[5, 1] = matrix[3, 5] = 2
    totals = matrix.sum(axis=1).tolist()
    order = clustered_order(totals, matrix_cells(matrix))
    assert set(order[:3]) == {1, 3, 5} and order[3:] == [0, 2, 4]
    assert clustered_order([3, 3], matrix_cells(np.eye(2) * 3)) == [0, 1]


def test_more_classes_than_can_be_clustered_keep_their_order(monkeypatch):
    monkeypatch.setattr(confusions, "MAX_ORDERED", 23)
    matrix, _ = planted(24, 4)
    totals = matrix.sum(axis=1).tolist()
    assert clustered_order(totals, matrix_cells(matrix)) == list(range(24))


def test_worst_pairs_and_shares_are_those_of_the_matrix():
    rng = np.random.default_rng(3)
    label, predicted = rng.integers(0, 4, 500), rng.integers(0, 5, 500)
    matrix = sklearn.metrics.confusion_matrix(label, predicted, labels=range(5))
    shares = sklearn.metrics.confusion_matrix(label, predicted, labels=range(4), normalize="true")
    found = Confusions("abcde", matrix.sum(axis=1).tolist(), matrix_cells(matrix), range(5))
    pairs = found.worst(100)
    assert [pair.examples for pair in pairs] == sorted(
        (matrix[i, j] for i in range(5) for j in range(5) if i != j and matrix[i, j]), reverse=True
    )
    for pair in pairs:
        i, j = "abcde".index(pair.label), "abcde".index(pair.predicted)
        assert i != j and pair.examples == matrix[i, j]
        if j < 4:
            kept = 1 - matrix[i, 4] / matrix[i].sum()  # normalize= leaves the fifth class out
            assert pair.share == pytest.approx(shares[i, j] * kept)
    assert found.worst(3) == pairs[:3] and found.omitted == 0


def test_of_many_cells_those_with_the_most_images_are_kept(monkeypatch):
    monkeypatch.setattr(confusions, "MAX_STORED", 5)
    matrix = np.arange(16).reshape(4, 4)
    cells = matrix_cells(matrix)
    assert sorted(cell.examples for cell in cells) == [11, 12, 13, 14, 15]
    found = Confusions("abcd", matrix.sum(axis=1).tolist(), cells, range(4))
    assert found.omitted == matrix.sum() - 65
