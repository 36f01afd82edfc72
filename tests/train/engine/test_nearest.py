"""Nearest neighbors against those of scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from train.engine import nearest

RNG = np.random.default_rng(0)
QUERIES, REFERENCES = RNG.normal(size=(23, 7)), RNG.normal(size=(41, 7))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(nearest, "_QUERIES", 8)
    monkeypatch.setattr(nearest, "_BLOCK", 16)


@pytest.mark.parametrize("count", [1, 5, 20, 41, 50])
def test_neighbors_are_those_of_scikit_learn(count):
    reference = NearestNeighbors(metric="cosine", algorithm="brute").fit(REFERENCES)
    distances, expected = reference.kneighbors(QUERIES, min(count, 41))
    indices, similarities = nearest.nearest(QUERIES, REFERENCES, count)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)


def test_an_image_is_not_its_own_neighbor_under_any_name():
    images = np.concatenate([REFERENCES, REFERENCES[:1]])  # the last is the first, under its name
    ids = np.append(np.arange(41), 0)
    indices, similarities = nearest.nearest(images, images, 42, ids, ids)
    for row, (found, cosines) in enumerate(zip(indices, similarities, strict=True)):
        others = {i for i in range(42) if ids[i] != ids[row]}
        assert set(found[cosines >= -1]) == others


def test_lengths_do_not_matter_and_zeros_are_similar_to_nothing():
    scales = np.array([1e-30, 1e-3, 1, 1e30])[:, None]
    references = np.float32(np.concatenate([QUERIES[:1] * scales, np.zeros((1, 7))]))
    _, similarities = nearest.nearest(QUERIES[:1], references, 5)
    np.testing.assert_allclose(similarities, [[1, 1, 1, 1, 0]], atol=1e-6)
