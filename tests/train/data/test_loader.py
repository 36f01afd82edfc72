"""Batches, resident or streamed: which images they hold, whoever reads them."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.pictures import encode, photograph
from train.data.in_memory import gather
from train.data.loader import DataLoader
from train.data.prefetch import Prefetcher
from train.data.reader import BadRecords, Reader
from train.data.sampler import EpochSampler, ProcessShard
from train.data.source import DataSource
from train.runtime.errors import RunError, UsageError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def splits(digits_config):
    """Makes the digits' training split, resident or streamed."""

    def make(resident, training=True, **dataset):
        digits_config.loader.cache_on_device = resident
        digits_config.dataset.update(dataset)
        return DataLoader(digits_config, "train" if training else "test", training).load()

    return make


def test_order_visits_each_record_at_most_once_an_epoch_and_follows_the_seed():
    order = EpochSampler(num_records=103, batch_size=10, seed=4)
    assert order.steps_per_epoch == 10
    epochs = [np.concatenate([order[10 * e + b] for b in range(10)]) for e in range(3)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 100
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = [set(range(103)) - set(epoch) for epoch in epochs]
    assert left_out[0] != left_out[1]
    again = EpochSampler(103, 10, seed=4)
    np.testing.assert_array_equal(again[17], order[17])  # asked for out of order
    assert not np.array_equal(EpochSampler(103, 10, seed=5)[17], order[17])


@pytest.mark.parametrize("start", [0, 5, 22, 37])
def test_resident_and_streamed_batches_are_the_same_from_any_step(splits, start):
    resident, streamed = splits("always"), splits("never")
    assert not streamed.resident
    order = EpochSampler(len(resident), 64, seed=3)
    steps = range(start, start + 3)
    pairs = zip(
        resident.train_batches(order, steps), streamed.train_batches(order, steps), strict=True
    )
    for kept, read in pairs:
        kept = gather(resident.resident, kept)
        assert kept.keys() == read.keys()
        for name in kept:
            np.testing.assert_array_equal(kept[name], read[name])
            assert kept[name].dtype == read[name].dtype


@pytest.mark.parametrize("resident", ["always", "never"])
def test_evaluation_batches_hold_every_record_once(splits, resident):
    split = splits(resident, training=False)
    batches = [gather(split.resident, batch) for batch in split.eval_batches(100)]
    assert [len(batch["label"]) for batch in batches] == [100] * 4
    valid = np.concatenate([batch["valid"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])[valid]
    assert valid.sum() == 360
    assert labels.tolist() == [split.source[i][1] for i in range(360)]


def test_threads_do_not_change_streamed_batches(splits, digits_config):
    digits_config.augment.rrc_scale = (0.3, 1.0)
    streams = []
    for threads in (1, 4):
        digits_config.loader.threads = threads
        split = splits("never")
        order = EpochSampler(len(split), 32, seed=0)
        streams.append(list(split.train_batches(order, range(4, 8))))
    for one, four in zip(*streams, strict=True):
        np.testing.assert_array_equal(one["image"], four["image"])
    assert not np.array_equal(streams[0][0]["image"], streams[0][1]["image"])


def test_processes_shares_make_up_the_batch(splits, digits_config):
    """Streamed with random crops, and resident: 1, 2 and 3 processes see the same batches."""
    for resident, scale in (("never", (0.3, 1.0)), ("always", (1.0, 1.0))):
        digits_config.augment.rrc_scale = scale
        split = splits(resident)
        order = EpochSampler(len(split), 60, seed=1)

        def global_batches(processes, split=split, order=order):
            parts = []
            for process in range(processes):
                split.share = ProcessShard(process, processes)
                parts.append([*split.train_batches(order, range(22, 26))])
            for batch in zip(*parts, strict=True):
                yield {name: np.concatenate([part[name] for part in batch]) for name in batch[0]}

        alone = [*global_batches(1)]
        for processes in (2, 3):
            for one, other in zip(alone, global_batches(processes), strict=True):
                for name in one:
                    np.testing.assert_array_equal(one[name], other[name])


def test_processes_evaluate_every_record_once(splits):
    for resident in ("always", "never"):
        split = splits(resident, training=False)
        labels = []
        for process in range(3):
            split.share = ProcessShard(process, 3)
            for batch in split.eval_batches(99):
                labels += gather(split.resident, batch)["label"][batch["valid"]].tolist()
        assert sorted(labels) == sorted(split.source[i][1] for i in range(360))


WORKERS = """
import hashlib, sys
from train.config.loading import default_config
from train.data.sampler import EpochSampler
from train.data.loader import DataLoader

def main():
    config = default_config()
    config.dataset.update(name="folder", data_dir=sys.argv[1], image_size=24)
    config.augment.rrc_scale = (0.3, 1.0)
    config.loader.max_corrupt_fraction = 1.0
    for workers in (0, 1, 4):
        config.loader.workers = workers
        digest = hashlib.sha256()
        split = DataLoader(config, "train", training=True)
        order = EpochSampler(len(split), 40, seed=0)
        for batch in split.train_batches(order, range(1, 5)):
            digest.update(batch["image"].tobytes() + batch["label"].tobytes())
        print(digest.hexdigest(), len(split._bad_records._found["train"]))

if __name__ == "__main__":
    main()
"""


def test_workers_do_not_change_batches(tmp_path):
    """0, 1 and 4 processes, a bad record among the images. They import the script again."""
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(40):
                (folder / f"{i}.png").write_bytes(encode(photograph(i, 30, 40), "PNG"))
    (tmp_path / "data/train/a/7.png").write_bytes(b"broken")
    script = tmp_path / "script.py"
    script.write_text(WORKERS)
    run = subprocess.run(
        [sys.executable, script, tmp_path / "data"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.split("\n")[:-1]
    assert len(lines) == 3 and len(set(lines)) == 1, run.stdout
    assert lines[0].endswith(" 1")


def test_repeated_augmentation_repeats_images_apart_and_leaves_none_out():
    order = EpochSampler(100, 12, seed=1, repeats=3)
    assert order.steps_per_epoch == 8  # as without
    seen = []
    for step in range(25):
        batch = order[step]
        images, counts = np.unique(batch, return_counts=True)
        assert counts.tolist() == [3] * 4
        assert (batch[::2] != batch[1::2]).all()  # mixup and cutmix mix these
        seen += images.tolist()
    assert sorted(seen) == list(range(100))  # in 25 steps of 4 images
    odd = EpochSampler(9, 6, seed=1, repeats=2)  # three images, so a pair lies across the times
    assert all((odd[step][::2] != odd[step][1::2]).all() for step in range(300))
    with pytest.raises(UsageError, match=r"repeats=5 does not divide config\.batch_size=12"):
        EpochSampler(100, 12, seed=1, repeats=5)


def test_sizes_rise_over_the_epochs(splits):
    split = splits("auto", train_sizes=(8, 12), train_size_epochs=(0.0, 1.0))
    assert not split.is_resident and split.image_shape == (8, 8, 3)
    order = EpochSampler(len(split), 64, seed=3)  # 22 steps an epoch
    shapes = [batch["image"].shape for batch in split.train_batches(order, range(20, 24))]
    assert shapes == [(64, 8, 8, 3)] * 2 + [(64, 12, 12, 3)] * 2
    resumed = next(split.train_batches(order, range(23, 24)))
    assert resumed["image"].shape == (64, 12, 12, 3)
    one = splits("auto", train_sizes=(6,), train_size_epochs=())
    assert next(one.train_batches(order, range(1)))["image"].shape == (64, 6, 6, 3)
    assert splits("auto", training=False, train_sizes=(6,)).is_resident  # evaluation stays
    with pytest.raises(UsageError, match=r"train_sizes=.*needs the epoch from which each holds"):
        splits("auto", train_sizes=(8, 12), train_size_epochs=(1.0, 2.0))


def test_order_is_the_same_in_another_process():
    order = EpochSampler(103, 10, seed=4)
    copy = pickle.loads(pickle.dumps(order))
    np.testing.assert_array_equal(copy[25], order[25])


# Bad records --------------------------------------------------------------------------------


def source_of(*images):
    records = [{"image": image, "label": i} for i, image in enumerate(images)]
    names = [f"{i}.png" for i in range(len(images))]
    return DataSource("some", "train", tuple("abcdefghij"), records, names=names)


GOOD = [encode(photograph(i, 6, 8), "PNG") for i in range(4)]


def test_the_next_image_stands_in_for_a_bad_one():
    reader = Reader(source_of(GOOD[0], b"bad", b"", GOOD[3]), max_fraction=0.5)
    pixels, label, bad = reader.read(1)
    np.testing.assert_array_equal(pixels, photograph(3, 6, 8))
    assert label == 3 and [record.index for record in bad] == [1, 2]
    assert reader.read(3)[1:] == (3, [])
    # After the last comes the first.
    reader = Reader(source_of(GOOD[0], b"bad"), max_fraction=0.5)
    assert reader.read(1)[1] == 0


def test_too_many_bad_images_end_the_run_naming_ten():
    reader = Reader(source_of(*[b"bad"] * 15, *GOOD), max_fraction=0.6)  # 12 of 19
    with pytest.raises(RunError, match=r"13 of the 19 images.*\(12\): 0\.png.*9\.png") as caught:
        reader.read(0)
    assert "10.png" not in str(caught.value) and "\n" not in str(caught.value)
    assert Reader(source_of(b"bad", *GOOD), max_fraction=1e-3).most == 1  # of 5, one is permitted
    with pytest.raises(RunError, match=r"config\.data\.max_corrupt_fraction"):
        Reader(source_of(b"bad", *GOOD), max_fraction=0.0).read(0)


def test_bad_records_are_listed_once(tmp_path):
    reader = Reader(source_of(b"bad", GOOD[1], b"worse"), max_fraction=1)
    for _ in range(2):  # a run and its continuation
        told = []
        bad_records = BadRecords(tmp_path, told.append)
        for record in (0, 2, 0):
            bad_records.add(reader, reader.read(record)[2])
        assert len(told) == 2 and told[0].startswith("train image 0.png is left out: 3 bytes")
    lines = (tmp_path / "bad_records.txt").read_text().splitlines()
    assert [line.split("\t")[:3] for line in lines] == [
        ["train", "0", "0.png"],
        ["train", "2", "2.png"],
    ]


@pytest.mark.parametrize("resident", ["always", "never"])
def test_evaluation_counts_bad_images_nowhere(splits, digits_config, monkeypatch, resident):
    digits_config.loader.max_corrupt_fraction = 0.5
    read = DataSource.__getitem__

    def broken(source, index):
        encoded, label = read(source, index)
        return (encoded if index % 100 else b"broken"), label

    monkeypatch.setattr(DataSource, "__getitem__", broken)
    split = splits(resident, training=False)
    batches = [gather(split.resident, batch) for batch in split.eval_batches(100)]
    valid, bad = (np.concatenate([batch[name] for batch in batches]) for name in ("valid", "bad"))
    assert np.flatnonzero(bad).tolist() == [0, 100, 200, 300]
    assert valid.sum() == 356 and not (valid & bad).any()


def test_images_that_are_all_bad_end_in_an_error_and_no_endless_search():
    reader = Reader(source_of(b"bad", b"worse"), max_fraction=1.0)
    with pytest.raises(RunError, match=r"none of the 2 images .*0\.png"):
        reader.read(0)


def test_a_split_goes_to_workers_without_the_runs_console(splits):
    """A console's progress bar can't be pickled, and grain pickles all that is referred to."""

    class Console:
        def __call__(self, text):
            raise NotImplementedError

        def __reduce__(self):
            raise TypeError("a console was pickled")

    split = splits("never").load(BadRecords(None, Console()))
    copy = pickle.loads(pickle.dumps(split))
    assert len(copy) == len(split) and copy.reader.read(3)[1] == split.reader.read(3)[1]


# Ahead of use -------------------------------------------------------------------------------


def test_ahead_keeps_order_and_raises_where_it_happened():
    def items():
        yield from range(3)
        raise ValueError("at the fourth")

    got = []
    with pytest.raises(ValueError, match="at the fourth"):
        for item in Prefetcher(items(), lambda item: 10 * item):
            got.append(item)
    assert got == [0, 10, 20]
    assert [*Prefetcher(range(5), str)] == list("01234")


def test_ahead_works_no_further_than_asked_and_stops():
    made = []
    batches = Prefetcher(iter(range(1000)), made.append, depth=2)
    next(batches)
    batches.close()  # waits for the thread
    count = len(made)
    assert count <= 4
