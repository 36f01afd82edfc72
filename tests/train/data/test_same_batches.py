"""The same images give the same batches from every data source."""

import pickle

import numpy as np
import pytest

from tests.train.data.labeled import huggingface, opened, write_shard
from train.data.loader import DataLoader
from train.data.registries import SOURCES
from train.data.sampler import EpochSampler
from train.data.sources.arrays import arrays_source
from train.data.sources.huggingface import huggingface_source

SPLITS = {"train": "train[:70]", "test": "test[:33]"}  # of the digits


@pytest.fixture(scope="module")
def digits(data_dir):
    """Images (N, 8, 8), labels and class names of parts of both splits, as TFDS reads them."""
    arrays = {}
    for name, split in SPLITS.items():
        source = opened("digits", data_dir, split)
        images, labels = zip(*map(source.decode, range(len(source))), strict=True)
        arrays[name] = np.stack(images)[..., 0], np.array(labels)
    return arrays, source.class_names


@pytest.fixture(scope="module")
def places(digits, tmp_path_factory):
    """The digits as files of each source, by ``dataset.name``, and of each kind of arrays."""
    folder = tmp_path_factory.mktemp("places")
    arrays, names = digits
    keras = {}
    for split, (images, labels) in arrays.items():
        keras |= {f"x_{split}": images, f"y_{split}": labels}
        for kind, values in (("images", images), ("labels", labels)):
            (folder / "npy").mkdir(exist_ok=True)
            np.save(folder / "npy" / f"{split}_{kind}.npy", values)
        half = len(images) // 2
        write_shard(f"{folder}/shards/{split}-0.tar", images[:half], labels[:half])
        write_shard(f"{folder}/shards/{split}-1.tar", images[half:], labels[half:], half)
    np.savez(folder / "stored.npz", **keras)
    np.savez_compressed(folder / "compressed.npz", **keras)
    try:
        import datasets
    except ImportError:
        return folder
    saved = {split: huggingface(*one, names) for split, one in arrays.items()}
    datasets.DatasetDict(saved).save_to_disk(str(folder / "saved"))
    return folder


def batches(config, cached):
    """Return the first training batches with random crops, if streamed, and all of evaluation."""
    config.loader.cache_on_device = "always" if cached else "never"
    config.augment.rrc_scale = (1.0, 1.0) if cached else (0.3, 1.0)
    config.batch_size, config.dataset.image_size = 16, 8
    train = DataLoader(config, config.dataset.train_split, True).load()
    evaluation = DataLoader(config, config.dataset.eval_split, False).load()
    sampler = EpochSampler(len(train), 16, config.seed)
    result = [*train.train_batches(sampler, range(2, 6)), *evaluation.eval_batches(16)]
    return [*result, train.cached, evaluation.cached], pickle.dumps(train)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("arrays", "stored.npz"),
        ("arrays", "compressed.npz"),
        ("arrays", "npy"),
        ("webdataset", "shards"),
        ("hf", "saved"),
        ("memory", ""),
        ("memory_hf", ""),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_batches_are_those_of_tfds(digits_config, digits, places, monkeypatch, name, place, cached):
    if "hf" in name:
        pytest.importorskip("datasets")
    arrays, class_names = digits
    entry = SOURCES._entries["digits"]
    own = {
        "memory": lambda _, split: arrays_source(*arrays[split], class_names, split),
        "memory_hf": lambda _, split: huggingface_source(
            huggingface(*arrays[split], class_names), split
        ),
    }
    for source, opener in own.items():
        monkeypatch.setitem(SOURCES._entries, source, entry._replace(part=opener))
    digits_config.dataset.train_split, digits_config.dataset.eval_split = SPLITS.values()
    expected, _ = batches(digits_config, cached)
    dataset = {"name": name, "data_dir": str(places / place) if place else ""}
    digits_config.dataset.update(train_split="train", eval_split="test", **dataset)
    found, pickled = batches(digits_config, cached)
    assert len(found) == len(expected) == 4 + 3 + 2
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
    loader = pickle.loads(pickled)  # as worker processes get it
    assert loader.source.class_names == class_names
    np.testing.assert_array_equal(loader.source.decode(5)[0][..., 0], arrays["train"][0][5])
