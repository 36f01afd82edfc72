"""Batches, cached or streamed: the same images for any number of readers."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.pictures import encode, photograph
from train.data import loader
from train.data.corrupt_records import CorruptRecords
from train.data.loader import DataLoader
from train.data.random_crop import crop_scale
from train.data.sampler import EpochSampler, ProcessShard
from train.data.source import DataSource
from train.runtime.errors import UsageError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def splits(digits_config):
    """A function that opens a split of the digits, cached or streamed."""

    def make(cache_on_device, training=True, **dataset):
        digits_config.loader.cache_on_device = cache_on_device
        digits_config.dataset.update(dataset)
        return DataLoader(digits_config, "train" if training else "test", training).load()

    return make


@pytest.mark.parametrize("start", [0, 5, 22, 37])
def test_cached_and_streamed_batches_are_equal_from_any_step(splits, start):
    cached, streamed = splits("always"), splits("never")
    assert not streamed.cached
    order = EpochSampler(len(cached), 64, seed=3)
    steps = range(start, start + 3)
    pairs = zip(
        cached.train_batches(order, steps), streamed.train_batches(order, steps), strict=True
    )
    for one, other in pairs:
        assert one.keys() == {"record"}
        one = cached.examples(cached.cached, one)
        assert streamed.examples({}, other) is other
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


@pytest.mark.parametrize("cache_on_device", ["always", "never"])
def test_evaluation_batches_hold_every_record_once(splits, cache_on_device):
    split = splits(cache_on_device, training=False)
    batches = [split.examples(split.cached, batch) for batch in split.eval_batches(100)]
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
        np.testing.assert_array_equal(one["label"], four["label"])


@pytest.fixture
def same_image(digits_config, monkeypatch):
    """A function that opens a split of 48 records of one image, with random crops."""
    image = encode(photograph(3, 240, 320), "PNG")

    def make(training=True, seed=0, **augment):
        records = [{"image": image, "label": label} for label in range(48)]
        source = DataSource("same", "train", tuple(map(str, range(48))), records)
        monkeypatch.setattr(loader, "open_source", lambda dataset, split: source)
        digits_config.seed = seed
        digits_config.augment.update({"rrc_scale": (0.3, 1.0)} | augment)
        return DataLoader(digits_config, "train", training).load()

    return make


def crops_of(split, seed=0, steps=range(3), repeats=1):
    order = EpochSampler(48, 48, seed, repeats)
    return np.stack([batch["image"] for batch in split.train_batches(order, steps)])


def test_every_crop_has_a_box_of_its_own(same_image):
    """In a batch, in every step, and for copies of an image; the seed changes all of them."""
    crops = crops_of(same_image())
    assert len(np.unique(crops.reshape(-1, 8 * 8 * 3), axis=0)) == 3 * 48
    np.testing.assert_array_equal(crops_of(same_image()), crops)
    np.testing.assert_array_equal(crops_of(same_image(), steps=range(2, 3)), crops[2:])  # resumed
    other = crops_of(same_image(seed=1))  # the sampler's seed has no part in this
    assert (crops != other).any((2, 3, 4)).all()
    copies = crops_of(same_image(), repeats=2)
    assert len(np.unique(copies.reshape(-1, 8 * 8 * 3), axis=0)) == 3 * 48


def test_crops_have_the_configured_scale_and_ratio(same_image):
    """Neighbors differ less in a smaller box, and along its shorter side."""

    def contrast(scale, ratio=(1.0, 1.01)):
        """Return the mean differences of neighbors below and beside one another."""
        crops = crops_of(same_image(rrc_scale=scale, rrc_ratio=ratio)).astype(int)
        return np.array([np.abs(np.diff(crops, axis=axis)).mean() for axis in (2, 3)])

    large, small = contrast((0.5, 0.6)), contrast((0.005, 0.006))  # a tenth of each side
    assert (large > 4 * small).all()
    below, beside = contrast((0.1, 0.11), (0.14, 0.15))  # 230 rows, 33 columns
    assert below > 3 * beside
    below, beside = contrast((0.1, 0.11), (7.0, 7.1))
    assert beside > 3 * below


def test_evaluation_crops_at_the_center_whatever_training_does(same_image, digits_config):
    split = same_image(training=False)
    expected = split.preprocessing.crop(photograph(3, 240, 320))
    for mode in ("never", "always"):
        digits_config.loader.cache_on_device = mode
        split = same_image(training=False)
        for batch in split.eval_batches(20):
            batch = split.examples(split.cached, batch)
            assert (batch["image"] == expected).all() and len(batch["image"]) == 20
        records = np.array([5, 40])
        np.testing.assert_array_equal(split.center_crops(records), [expected, expected])
    digits_config.dataset.crop_pct = 0.5
    assert same_image(training=False).preprocessing.resize == 16


def test_samples_are_the_first_examples_of_the_first_batch(splits, same_image, digits_config):
    for split in (splits("always"), splits("never"), same_image()):
        order = EpochSampler(len(split), 40, seed=3)
        batch = next(iter(split.train_batches(order, range(1))))
        batch = split.examples(split.cached, batch)
        records, samples = split.samples(order, 10)
        np.testing.assert_array_equal(records, order[0][:10])
        for name in ("image", "label"):
            np.testing.assert_array_equal(samples[name], batch[name][:10])
        split.shard = ProcessShard(1, 2)
        records, samples = split.samples(order, 64)
        np.testing.assert_array_equal(records, order[0][20:])
        np.testing.assert_array_equal(samples["image"], batch["image"][20:])


def test_the_shards_of_all_processes_make_up_the_batch(splits, digits_config):
    """Streamed with random crops, and cached: 1, 2 and 3 processes see the same batches."""
    for cache_on_device, scale in (("never", (0.3, 1.0)), ("always", (1.0, 1.0))):
        digits_config.augment.rrc_scale = scale
        split = splits(cache_on_device)
        order = EpochSampler(len(split), 60, seed=1)

        def global_batches(processes, split=split, order=order):
            parts = []
            for process in range(processes):
                split.shard = ProcessShard(process, processes)
                parts.append([*split.train_batches(order, range(22, 26))])
            for batch in zip(*parts, strict=True):
                yield {name: np.concatenate([part[name] for part in batch]) for name in batch[0]}

        single = [*global_batches(1)]
        for processes in (2, 3):
            for one, other in zip(single, global_batches(processes), strict=True):
                for name in one:
                    np.testing.assert_array_equal(one[name], other[name])


def test_several_processes_evaluate_every_record_once(splits):
    for cache_on_device in ("always", "never"):
        split = splits(cache_on_device, training=False)
        labels = []
        for process in range(3):
            split.shard = ProcessShard(process, 3)
            for batch in split.eval_batches(99):
                labels += split.examples(split.cached, batch)["label"][batch["valid"]].tolist()
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
        print(digest.hexdigest(), len(split._corrupt_records._by_split["train"]))

if __name__ == "__main__":
    main()
"""


def test_workers_do_not_change_batches(tmp_path):
    """0, 1 and 4 processes, with a corrupt record; the workers import the script again."""
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


def test_progressive_resizing_follows_the_epochs(splits):
    split = splits("auto", train_sizes=(8, 12), train_size_epochs=(0.0, 1.0))
    assert not split.cached_on_device and split.image_shape == (8, 8, 3)
    order = EpochSampler(len(split), 64, seed=3)  # 22 steps an epoch
    shapes = [batch["image"].shape for batch in split.train_batches(order, range(20, 24))]
    assert shapes == [(64, 8, 8, 3)] * 2 + [(64, 12, 12, 3)] * 2
    resumed = next(split.train_batches(order, range(23, 24)))
    assert resumed["image"].shape == (64, 12, 12, 3)
    one = splits("auto", train_sizes=(6,), train_size_epochs=())
    assert next(one.train_batches(order, range(1)))["image"].shape == (64, 6, 6, 3)
    assert splits(
        "auto", training=False, train_sizes=(6,)
    ).cached_on_device  # evaluation is unchanged
    with pytest.raises(
        UsageError, match=r"train_sizes=\(8, 12\) needs as many .* not \(1\.0, 2\.0\)"
    ):
        splits("auto", train_sizes=(8, 12), train_size_epochs=(1.0, 2.0))


@pytest.mark.parametrize("cache_on_device", ["always", "never"])
def test_evaluation_marks_corrupt_images_as_not_valid(
    splits, digits_config, monkeypatch, cache_on_device
):
    digits_config.loader.max_corrupt_fraction = 0.5
    read = DataSource.__getitem__

    def broken(source, index):
        encoded, label = read(source, index)
        return (encoded if index % 100 and index < 359 else b"broken"), label

    monkeypatch.setattr(DataSource, "__getitem__", broken)
    warnings = []
    split = splits(cache_on_device, training=False).load(CorruptRecords(None, warnings.append))
    batches = [split.examples(split.cached, batch) for batch in split.eval_batches(100)]
    valid, bad = (np.concatenate([batch[name] for batch in batches]) for name in ("valid", "bad"))
    # The padding after record 359 repeats it, and is neither.
    assert np.flatnonzero(bad).tolist() == [0, 100, 200, 300, 359]
    assert np.flatnonzero(valid | bad).tolist() == [*range(360)]
    assert valid.sum() == 355 and not (valid & bad).any()
    assert [re.search(r"record \d+", text)[0] for text in warnings] == [
        f"record {index}" for index in (0, 100, 200, 300, 359)
    ]


@pytest.mark.parametrize("cache_on_device", ["always", "never"])
def test_training_batches_have_the_weights_of_their_records(digits_config, cache_on_device):
    """A record in place of a corrupt one keeps its own weight."""
    digits_config.loader.update(cache_on_device=cache_on_device, max_corrupt_fraction=0.1)
    pixels = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    records = [{"image": image, "label": 0} for image in pixels]
    records[7]["image"] = records[39]["image"] = b"broken"
    weights = np.arange(40, dtype=np.float32) / 19.5
    source = DataSource("own", "train", ("a", "b"), records, weights=weights)
    train = DataLoader(digits_config, "train", True, source=source).load()
    sampler = EpochSampler(40, 20, seed=1)
    batches = [
        train.examples(train.cached, batch) for batch in train.train_batches(sampler, range(4))
    ]
    for batch in batches:
        values = batch["image"][:, 0, 0, 0]
        np.testing.assert_array_equal(batch["weight"], weights[values])
        assert batch["weight"].dtype == np.float32
    assert {8, 0} <= set(np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches]))
    evaluation = DataLoader(digits_config, "test", False, source=source).load()
    batch = next(iter(evaluation.eval_batches(20)))
    assert "weight" not in evaluation.examples(evaluation.cached, batch)


def test_a_loader_is_pickled_without_the_runs_console(splits):
    """A progress bar cannot be pickled, and Grain pickles everything that is referenced."""

    class Console:
        def __call__(self, text):
            raise NotImplementedError

        def __reduce__(self):
            raise TypeError("a console was pickled")

    split = splits("never").load(CorruptRecords(None, Console()))
    copy = pickle.loads(pickle.dumps(split))
    assert len(copy) == len(split) and copy.reader.read(3)[1] == split.reader.read(3)[1]
    cached = splits("always").load(CorruptRecords(None, Console()))
    assert pickle.loads(pickle.dumps(cached)).cached == {}


def test_random_crops_and_training_sizes_are_not_cached(splits, digits_config):
    digits_config.loader.device_cache_gib = 0.0
    assert not splits("auto").cached_on_device and splits("always").cached_on_device
    with pytest.raises(UsageError, match=r"cache_on_device='always' .*train_sizes=\(6,\)"):
        splits("always", train_sizes=(6,), train_size_epochs=())
    digits_config.dataset.train_sizes = ()
    digits_config.augment.rrc_scale = (0.3, 1.0)
    with pytest.raises(UsageError, match=r"rrc_scale=\(0\.3, 1\.0\)"):
        splits("always")


def test_the_memory_limit_counts_both_splits(splits, digits_config):
    train = splits("auto")
    config = digits_config
    assert train.cached_gib * 2**30 == train.cached["image"].nbytes
    config.loader.device_cache_gib = train.cached_gib
    assert DataLoader(config, "train", training=True).cached_on_device  # just enough
    config.loader.device_cache_gib = 1.1 * train.cached_gib
    assert DataLoader(config, "test", training=False).cached_on_device
    both = DataLoader(config, "test", training=False, cached_gib=train.cached_gib)
    assert not both.cached_on_device and both.cached_gib == 0


def test_short_runs_crop_less(digits_config):
    digits_config.update(num_epochs=12, num_steps=0, batch_size=32)
    digits_config.augment.rrc_scale = (0.5, 1.0)
    assert crop_scale(digits_config, 640) == (0.5, 1.0)
    digits_config.augment.rrc_full_epochs = 48.0
    assert crop_scale(digits_config, 640) == (0.875, 1.0)
    digits_config.num_epochs = 120
    assert crop_scale(digits_config, 640) == (0.5, 1.0)
    digits_config.num_steps = 480  # 24 epochs of 20 steps take precedence
    assert crop_scale(digits_config, 640) == (0.75, 1.0)


def test_the_shortest_runs_show_more_of_each_image(same_image, digits_config):
    """Neighbors differ more where the crop shows more of the image."""
    scale = dict(rrc_scale=(0.005, 1.0), rrc_full_epochs=100.0)

    def contrast(epochs):
        digits_config.update(num_epochs=epochs, num_steps=0)
        return np.abs(np.diff(crops_of(same_image(**scale)).astype(int), axis=2)).mean()

    assert contrast(1) > 1.1 * contrast(100)
