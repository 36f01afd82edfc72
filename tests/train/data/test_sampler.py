"""The sampler of the training records."""

import pickle

import numpy as np
import pytest
import scipy.stats

from train.data.sampler import BalancedSampler, EpochSampler, ProcessShard
from train.runtime.errors import UsageError


def test_epochs_are_shuffled_by_the_seed_and_visit_records_at_most_once():
    sampler = EpochSampler(num_records=103, batch_size=10, seed=4)
    assert sampler.steps_per_epoch == 10
    epochs = [np.concatenate([sampler[10 * e + b] for b in range(10)]) for e in range(3)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 100 and 0 <= epoch.min() and epoch.max() <= 102
        assert epoch.dtype == np.int32
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = [set(range(103)) - set(epoch) for epoch in epochs]
    assert left_out[0] != left_out[1]
    again = EpochSampler(103, 10, seed=4)
    np.testing.assert_array_equal(again[17], sampler[17])  # out of order
    np.testing.assert_array_equal(sampler[3], epochs[0][30:40])  # after later epochs
    for step in (17, 7, 27):  # neither this epoch of another seed, nor one beside it
        assert not np.array_equal(EpochSampler(103, 10, seed=5)[step], sampler[17])


def test_orders_of_earlier_versions_are_kept():
    """Or a run would continue with other batches than it began with."""
    for step in (0, 17, 29):
        order = np.random.default_rng((4, step // 10)).permutation(103)
        expected = order[step % 10 * 10 :][:10]
        np.testing.assert_array_equal(EpochSampler(103, 10, seed=4)[step], expected)


def test_every_record_is_equally_likely_at_every_place():
    places = np.zeros((12, 12), int)
    for seed in range(40):
        sampler = EpochSampler(12, 4, seed)
        for epoch in range(30):
            order = np.concatenate([sampler[3 * epoch + batch] for batch in range(3)])
            places[np.arange(12), order] += 1
    assert scipy.stats.chisquare(places, axis=None).pvalue > 0.01


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
    # The fewest that a copy can have so that the next one can begin with another image.
    pairs = EpochSampler(8, 6, seed=1, repeats=3)
    assert all((pairs[step][1:] != pairs[step][:-1]).all() for step in range(100))


def test_each_copy_of_a_batch_has_its_own_order():
    """Or mixup would pair the same images in each copy."""
    sampler = EpochSampler(100, 32, seed=1, repeats=4)
    batches = np.array([sampler[step].reshape(4, 8) for step in range(60)])
    for one in range(4):
        for other in range(one):
            same = (batches[:, one] == batches[:, other]).mean()
            assert 0.07 < same < 0.18  # 1/8 by chance
    # Neither do the orders repeat from step to step, or from seed to seed.
    ranks = batches.argsort(axis=2)
    assert len(np.unique(ranks.reshape(-1, 8), axis=0)) > 200
    again, other = (EpochSampler(100, 32, seed, repeats=4)[7] for seed in (1, 2))
    np.testing.assert_array_equal(again, sampler[7])
    assert not np.array_equal(other, again)


@pytest.mark.parametrize(
    ("batch_size", "repeats", "nearest"), [(12, 5, 10), (13, 5, 15), (2, 7, 7)]
)
def test_copies_that_do_not_fill_a_batch_are_a_usage_error(batch_size, repeats, nearest):
    message = f"repeated_aug={repeats} must divide .*batch_size={batch_size}; .* is {nearest}$"
    with pytest.raises(UsageError, match=message):
        EpochSampler(100, batch_size, seed=1, repeats=repeats)


def test_processes_share_a_batch_in_order():
    assert [[*ProcessShard(process, 3).positions(12)] for process in range(3)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert [*ProcessShard().positions(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("repeats", [1, 2])
def test_order_is_the_same_after_pickling(repeats):
    sampler = EpochSampler(103, 10, 4, repeats)
    copy = pickle.loads(pickle.dumps(sampler))
    np.testing.assert_array_equal(copy[25], sampler[25])
    assert (copy.steps_per_epoch, copy.repeats) == (10, repeats)


def test_the_orders_of_earlier_epochs_are_dropped():
    sampler = EpochSampler(103, 10, seed=4)
    for step in range(0, 60, 5):
        sampler[step]
    assert len(sampler._orders) == 2  # batches are loaded ahead, so two epochs are in use


LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3, 4], [300, 70, 29, 1]))


def balanced(batch_size=40, seed=4, repeats=1, labels=LABELS):
    return BalancedSampler(labels, batch_size, seed, repeats)


@pytest.mark.parametrize("batch_size", [40, 41, 3])
def test_balanced_batches_have_all_classes_equally_often(batch_size):
    sampler = balanced(batch_size)
    assert sampler.steps_per_epoch == 400 // batch_size  # as without
    classes = np.unique(LABELS)
    for step in range(3 * sampler.steps_per_epoch):
        batch = sampler[step]
        assert batch.shape == (batch_size,) and batch.dtype == np.int32
        counts = [(LABELS[batch] == label).sum() for label in classes]
        assert max(counts) - min(counts) <= 2
    order = np.concatenate([sampler[step] for step in range(sampler.steps_per_epoch)])
    counts = np.bincount(order, minlength=400)
    # Images of rare classes are used equally often, those of frequent ones at most once a pass.
    for label in classes:
        used = counts[LABELS == label]
        assert used.max() - used.min() <= 2


def test_balanced_epochs_continue_with_the_other_images_of_a_frequent_class():
    sampler = balanced()  # 100 images of each class per epoch
    order = np.concatenate([sampler[step] for step in range(30)])
    frequent = order[LABELS[order] == 0]
    assert sorted(frequent) == np.flatnonzero(LABELS == 0).tolist()  # 300 in three epochs


def test_balanced_batches_depend_on_seed_and_step_only():
    sampler = balanced()
    batches = [sampler[step] for step in range(35)]
    for step in (34, 3, 17, 9, 10):  # out of order, across epochs, after pickling
        np.testing.assert_array_equal(balanced()[step], batches[step])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(sampler))[step], batches[step])
        assert not np.array_equal(balanced(seed=5)[step], batches[step])
    assert not np.array_equal(batches[0], batches[10])


def test_processes_draw_the_shares_of_one_balanced_batch():
    for step in (0, 7, 13):
        parts = [balanced()[step][ProcessShard(i, 2).positions(40)] for i in range(2)]
        np.testing.assert_array_equal(np.concatenate(parts), balanced()[step])


def test_every_image_of_a_class_is_equally_likely():
    labels = np.repeat([0, 1], [9, 3])
    counts = np.zeros(12, int)
    pairs = 0
    for seed in range(300):
        for step in range(2):
            batch = balanced(6, seed, labels=labels)[step]
            counts += np.bincount(batch, minlength=12)
            pairs += (labels[batch[::2]] == labels[batch[1::2]]).sum()
    assert scipy.stats.chisquare(counts[:9]).pvalue > 0.01
    assert len(set(counts[9:])) == 1  # each twice in six
    assert 0.3 < pairs / 1800 < 0.5  # mixup also pairs images of one class; 2 / 5 by chance


def test_repeated_augmentation_of_balanced_batches():
    sampler = balanced(repeats=2)
    for step in range(25):
        _, counts = np.unique(sampler[step], return_counts=True)
        assert (counts % 2 == 0).all()
        assert [(LABELS[sampler[step]] == label).sum() for label in (0, 1, 3, 4)] == [10] * 4


def test_balanced_sampling_describes_an_epoch():
    text = balanced().describe_epoch()
    assert "an image of the rarest class 100 times per epoch, one of the most frequent 0.33" in text


@pytest.mark.parametrize(
    ("count", "repeats", "text"),
    [
        (100, 1, ""),
        (103, 1, "each epoch leaves out 3 images (2.9 %), different ones every time"),
        (103, 2, "each epoch leaves out 53 images (51.5 %), different ones every time"),
    ],
)
def test_images_that_an_epoch_leaves_out_are_counted(count, repeats, text):
    """Ten batches of 10, or of 5 distinct images."""
    assert EpochSampler(count, 10, 0, repeats).describe_epoch() == text
