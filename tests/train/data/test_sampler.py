"""The sampler of the training records."""

import pickle

import numpy as np
import pytest

from train.data.sampler import EpochSampler
from train.runtime.errors import UsageError


def test_epochs_are_shuffled_by_the_seed_and_visit_records_at_most_once():
    sampler = EpochSampler(num_records=103, batch_size=10, seed=4)
    assert sampler.steps_per_epoch == 10
    epochs = [np.concatenate([sampler[10 * e + b] for b in range(10)]) for e in range(3)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 100
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = [set(range(103)) - set(epoch) for epoch in epochs]
    assert left_out[0] != left_out[1]
    again = EpochSampler(103, 10, seed=4)
    np.testing.assert_array_equal(again[17], sampler[17])  # out of order
    assert not np.array_equal(EpochSampler(103, 10, seed=5)[17], sampler[17])


def test_repeated_augmentation_separates_copies_and_covers_all_images():
    sampler = EpochSampler(100, 12, seed=1, repeats=3)
    assert sampler.steps_per_epoch == 8  # as without
    covered = []
    for step in range(25):
        batch = sampler[step]
        images, counts = np.unique(batch, return_counts=True)
        assert counts.tolist() == [3] * 4
        assert (batch[::2] != batch[1::2]).all()  # mixup and cutmix mix these
        covered += images.tolist()
    assert sorted(covered) == list(range(100))  # in 25 steps of 4 images
    odd = EpochSampler(9, 6, seed=1, repeats=2)  # three images, so one pair spans both copies
    assert all((odd[step][::2] != odd[step][1::2]).all() for step in range(300))
    with pytest.raises(UsageError, match=r"repeated_aug=5 must divide .*batch_size=12; .* is 10"):
        EpochSampler(100, 12, seed=1, repeats=5)


def test_order_is_the_same_after_pickling():
    sampler = EpochSampler(103, 10, seed=4)
    copy = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(copy[25], sampler[25])
