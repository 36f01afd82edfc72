"""Weights of classes by the pixels of the training masks, beside scikit-learn's."""

import dataclasses

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tests.train.data.masked import opened, png, write
from train.config.loading import default_config
from train.data.datasets import open_source
from train.runtime.errors import RunError
from train.tasks.pixel_balance import make_pixel_balance


def balanced(source):
    """Return the balance of ``class_weights="balanced"``."""
    config = default_config()
    config.task, config.class_weights = "segmentation", "balanced"
    return make_pixel_balance(config, source)


@pytest.mark.parametrize("split", ["train[:40]", "test[:1]"])
def test_balanced_weights_are_scikit_learns_of_the_pixels(split):
    dataset = default_config().dataset
    dataset.name = "drawn_shapes"
    source = open_source(dataset, split)
    balance = balanced(source)
    pixels = np.concatenate([source.decode(i)[1].ravel() for i in range(len(source))])
    classes = np.unique(pixels)
    expected = np.ones(5)
    expected[classes] = compute_class_weight("balanced", classes=classes, y=pixels)
    np.testing.assert_allclose(balance.weights, expected, rtol=1e-12)
    assert ("others 1" in balance.describe()) == (len(classes) < 5)


@pytest.mark.parametrize("record_weights", [None, (1.0, 3.0, 0.5, 2.0)])
def test_ignored_pixels_and_broken_masks_do_not_count(tmp_path, record_weights):
    masks, of_pixels = [], []
    written = write(tmp_path, "abcd", "train")
    write(tmp_path, "e", "val")
    for name, weight in zip("abc", record_weights or (1.0,) * 3, strict=False):
        values = written[name][1].copy()
        values[:5] = 255
        (tmp_path / "train" / "masks" / f"{name}.png").write_bytes(png(values))
        masks.append(2 - values[5:].ravel().astype(int))  # the classes of these values
        of_pixels.append(np.full(masks[-1].size, weight))
    (tmp_path / "train" / "masks" / "d.png").write_bytes(b"broken")
    source = opened(tmp_path, mask_values=(2, 1, 0))
    if record_weights:
        source = dataclasses.replace(source, weights=np.float32(record_weights))
    shares = np.bincount(np.concatenate(masks), np.concatenate(of_pixels))
    expected = shares.sum() / (3 * shares)
    np.testing.assert_allclose(balanced(source).weights, expected, rtol=1e-6)


def test_masks_without_any_class_cannot_be_balanced(tmp_path):
    for folder in ("train", "val"):
        for name, (_, mask) in write(tmp_path, "ab", folder).items():
            path = tmp_path / folder / "masks" / f"{name}.png"
            path.write_bytes(png(np.full_like(mask, 255)))
    with pytest.raises(
        RunError, match="no pixel of the masks of 'segmentation_folder' train has a class"
    ):
        balanced(opened(tmp_path))
