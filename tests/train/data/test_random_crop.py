"""Random-resized crops, on the host."""

import time

import numpy as np
import pytest
from PIL import Image

from tests.train.pictures import photograph
from train.data import random_crop
from train.data.random_crop import random_resized_crop


def test_random_resized_crop_covers_the_range_of_scales():
    # Pixel values are positions, so the corners of the crop give its box.
    rows, columns = np.mgrid[:200, :200]
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        crop = random_resized_crop(image, 32, rng, (0.25, 0.5)).astype(float)
        assert crop.shape == (32, 32, 3)
        height = (crop[-1, 0, 0] - crop[0, 0, 0]) * 32 / 31
        width = (crop[0, -1, 1] - crop[0, 0, 1]) * 32 / 31
        areas.append(height * width / 200**2)
        assert 0.7 < width / height < 1.42
    assert 0.23 < min(areas) < 0.28 and 0.47 < max(areas) < 0.53
    assert 0.35 < np.mean(areas) < 0.40
    # No box of a valid ratio fits: the largest centered one.
    sliver = np.zeros((200, 10, 3), np.uint8)
    assert random_resized_crop(sliver, 8, rng, (0.9, 1.0)).shape == (8, 8, 3)


@pytest.mark.parametrize("shape", [(64, 64), (130, 97), (300, 140), (511, 480)])
def test_random_crops_shrink_without_aliasing(shape):
    """Stripes of one pixel, which become moiré if pixels are skipped."""
    stripes = np.zeros((*shape, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = random_resized_crop(stripes, 32, np.random.default_rng(0), (1.0, 1.0), (0.5, 2.0))
    assert 100 <= crop.min() and crop.max() <= 155
    picture = photograph(5, *shape)
    whole = Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX)
    crop = random_crop._resize(picture, 32)
    assert abs(crop.astype(int) - np.asarray(whole)).mean() < 8  # an odd last row is dropped


def test_an_extreme_aspect_ratio_takes_no_longer():
    start = time.monotonic()
    ribbon = np.zeros((2, 100_000, 3), np.uint8)
    rng = np.random.default_rng(0)
    assert random_resized_crop(ribbon, 224, rng, (0.08, 1)).shape == (224, 224, 3)
    assert time.monotonic() - start < 1
