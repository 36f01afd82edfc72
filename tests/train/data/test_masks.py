"""Batches of images with masks: canvases, the same for any number of readers and processes."""

import pickle

import numpy as np
import pytest

from tests.train.data.masked import mask, opened, write
from tests.train.pictures import photograph
from train.config.loading import default_config
from train.data.canvas import SHRUNK, fitted_size, place_on_canvas
from train.data.loader import DataLoader
from train.data.masks import ArrayMasks, MaskSource, MaskValues
from train.data.sampler import EpochSampler, ProcessShard
from train.data.sources.drawn_shapes import COUNTS, NAMES, draw
from train.runtime.errors import UsageError
from train.statistics import channel_statistics


def loader(cache="always", split="train", shard=None, **keys):
    """Return the loader of a split of the drawn shapes."""
    config = default_config()
    config.dataset.update({"name": "drawn_shapes", "image_size": (72, 80)} | keys)
    config.loader.cache_on_device = cache
    return DataLoader(config, split, split == "train", shard or ProcessShard()).load()


def batches_of(split, steps, batch_size=24):
    sampler = EpochSampler(len(split), batch_size, seed=3)
    return [split.examples(split.cached, b) for b in split.train_batches(sampler, steps)]


def test_cached_and_streamed_batches_are_equal_in_any_process_from_any_step():
    whole = batches_of(loader(), range(20, 23))
    streamed = batches_of(loader("never"), range(20, 23))
    parts = [batches_of(loader("never", shard=ProcessShard(k, 2)), range(22, 23)) for k in (0, 1)]
    for one, other in zip(whole, streamed, strict=True):
        for name in ("image", "label"):
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype == np.uint8
    for name in ("image", "label"):
        joined = np.concatenate([part[0][name] for part in parts])
        np.testing.assert_array_equal(joined, whole[2][name])
    assert whole[0]["image"].shape == (24, 72, 80, 3) and whole[0]["label"].shape == (24, 72, 80)


def test_batches_hold_the_records_of_the_sampler():
    split = loader()
    sampler = EpochSampler(len(split), 24, seed=3)
    images, masks = draw("train")
    (batch,) = batches_of(split, range(5, 6))
    np.testing.assert_array_equal(batch["image"][:, :64, :64], images[sampler[5]])
    np.testing.assert_array_equal(batch["label"][:, :64, :64], masks[sampler[5]])
    assert (batch["image"][:, 64:] == (124, 116, 104)).all()  # the mean color
    assert (batch["label"][:, 64:] == 255).all() and (batch["label"][:, :, 64:] == 255).all()


@pytest.mark.parametrize("cache", ["always", "never"])
def test_evaluation_has_every_mask_once(cache):
    split = loader(cache, "test", image_size=64)
    assert split.cached_on_device == (cache == "always")
    batches = [split.examples(split.cached, batch) for batch in split.eval_batches(50)]
    valid = np.concatenate([batch["valid"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    assert len(labels) == 150 and valid.sum() == COUNTS["test"]
    np.testing.assert_array_equal(labels[valid], draw("test")[1])


def test_memory_of_the_cache_includes_masks():
    assert loader().cached_gib == pytest.approx(512 * 72 * 80 * 4 / 2**30)


def test_workers_get_the_source_by_pickle(tmp_path):
    write(tmp_path, [f"n{k}" for k in range(6)])
    source = opened(tmp_path, "all")
    copy = pickle.loads(pickle.dumps(source))
    for one, other in zip(source.decode(4), copy.decode(4), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((30, 40), (30, 40), (30, 40)),
        ((3, 4), (30, 40), (3, 4)),
        ((60, 40), (30, 40), (30, 20)),
        ((30, 80), (30, 40), (15, 40)),
        ((61, 80), (30, 40), (30, 39)),
        ((1, 4000), (30, 40), (1, 40)),
    ],
)
def test_only_larger_pictures_are_shrunk(size, canvas, expected):
    assert fitted_size(size, canvas) == expected


def test_shrunk_pictures_keep_their_areas_and_masks_the_nearest_class():
    torch = pytest.importorskip("torch")
    image, classes = photograph(0, 90, 60), mask(0, 90, 60)
    placed, labels = place_on_canvas(image, classes, (36, 36), (1, 2, 3), 255)
    halves = image.repeat(2, 0).repeat(2, 1)  # five of these are a pixel of the result
    means = halves.reshape(36, 5, 24, 5, 3).mean((1, 3))
    assert abs(placed[:, :24] - means).max() <= 1
    assert (placed[:, 24:] == (1, 2, 3)).all() and (labels[:, 24:] == 255).all()
    exact = torch.nn.functional.interpolate(
        torch.tensor(classes)[None, None].float(), (36, 24), mode="nearest-exact"
    )
    np.testing.assert_array_equal(labels[:, :24], exact[0, 0].numpy())


def test_statistics_leave_padding_out():
    images = draw("train")[0] / 255
    count, mean, std = channel_statistics(loader("never", image_size=(64, 100)))
    assert count == 512
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_pictures_of_any_channels_and_bits_are_shrunk(channels):
    values = np.random.default_rng(0).integers(0, 65536, (24, 36, channels), np.uint16)
    placed, _ = place_on_canvas(values, mask(0, 24, 36), (8, 20), (7,) * channels, 255)
    means = values.reshape(8, 3, 12, 3, channels).mean((1, 3))
    assert placed.dtype == np.uint16 and abs(placed[:, :12] - means).max() <= 1
    assert (placed[:, 12:] == 7).all()


def test_the_number_of_shrunk_pictures_is_a_finding(tmp_path):
    write(tmp_path, [f"n{k}" for k in range(14)])  # 20 to 26 rows, 24 to 28 columns
    config = default_config()
    config.dataset.update(name="segmentation_folder", data_dir=str(tmp_path), image_size=(24, 26))
    split = DataLoader(config, "all", training=False)
    sizes = [mask.shape for _, mask in map(split.source.decode, range(14))]
    expected = sum(height > 24 or width > 26 for height, width in sizes)
    (finding,) = split.findings()
    assert finding.kind == SHRUNK and finding.count == expected > 0
    assert f"{expected} of 14 images of 'all' do not fit on the canvas of 26×24" in finding.text
    config.dataset.image_size = 28
    assert not DataLoader(config, "all", training=False).findings()


def test_keys_of_crops_have_no_meaning():
    with pytest.raises(
        UsageError, match=r"dataset.train_sizes=\(32,\) has no meaning for images w"
    ):
        loader(train_sizes=(32,))
    config = default_config()
    config.dataset.name = "drawn_shapes"
    config.augment.rrc_scale = (0.2, 1.0)
    with pytest.raises(UsageError, match=r"augment.rrc_scale=\(0.2, 1.0\) has no meaning"):
        DataLoader(config, "train", training=True)


def test_drawn_shapes_are_the_same_everywhere():
    """The sums were computed on x86-64 with NumPy 2."""
    images, masks = draw("train")
    assert images.shape == (512, 64, 64, 3) and masks.shape == (512, 64, 64)
    weights = np.arange(1, images.size + 1, dtype=np.uint64)
    sums = [int((array.ravel() * weights[: array.size]).sum()) for array in (images, masks)]
    assert sums == SUMS
    assert {*np.unique(masks).tolist()} == set(range(len(NAMES)))
    assert (masks > 0).any((1, 2)).all()
    test = draw("test")[0]
    assert not (images[:, None, ::16, ::16] == test[None, :, ::16, ::16]).all((2, 3, 4)).any()


SUMS = [2452181654105432, 857405601628]


def test_drawn_shapes_have_parts():
    part = loader(split="train[10:20]").source
    np.testing.assert_array_equal(part.decode(3)[1], draw("train")[1][13])
    assert len(part) == 10 and part.split == "train[10:20]"


def test_sources_in_memory_may_have_own_values():
    images = np.zeros((2, 3, 4, 3), np.uint8)
    masks = np.array([[[0, 10, 20, 99]] * 3, [[7, 10, 10, 0]] * 3], np.uint8)
    values = MaskValues((10, 20), (0, 99))
    source = MaskSource("x", "train", ("a", "b"), ArrayMasks(images, masks), mask_values=values)
    assert source.decode(0)[1][0].tolist() == [255, 0, 1, 255]
    with pytest.raises(ValueError, match=r"value that is no class: 7 \(classes: 10, 20; ignored"):
        source.decode(1)
    with pytest.raises(UsageError, match="have masks, not one class each"):
        source.all_labels()
    with pytest.raises(UsageError, match="has 256 classes; masks can have 255"):
        MaskSource("x", "train", tuple(map(str, range(256))), ArrayMasks(images, masks))


def test_a_folder_for_embedded_data_is_refused():
    with pytest.raises(UsageError, match=r"data_dir='.*street' has no meaning for 'drawn_shapes'"):
        loader(data_dir="street")
