"""Random-resized crops: the boxes against closed forms, rejection sampling and torchvision."""

import math
import time

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from tests.flax_resnet.peers import peer
from tests.train.pictures import photograph
from train.data import random_crop
from train.data.random_crop import random_resized_crop

COUNT = 4000
LIMIT = 0.03  # for uniform samples, larger statistics have a probability of 0.1 %


@pytest.fixture
def boxes(monkeypatch):
    """A function that returns top, left, height and width of crops, each ``(count,)``."""
    monkeypatch.setattr(random_crop, "_resize", lambda crop, size: crop)

    def sample(height, width, scale, ratio=(3 / 4, 4 / 3), count=COUNT, seed=0):
        image = np.stack(np.mgrid[:height, :width], axis=2)  # pixels are positions
        rng = np.random.default_rng(seed)
        crops = [random_resized_crop(image, 8, rng, scale, ratio) for _ in range(count)]
        return np.array([(*crop[0, 0], *crop.shape[:2]) for crop in crops]).T

    return sample


def deviation(sample, low, high):
    """Return the Kolmogorov–Smirnov statistic against the uniform distribution."""
    return scipy.stats.kstest((sample - low) / (high - low), "uniform").statistic


def fitting(height, width, scale, ratio, count=100_000):
    """Return areas and aspect ratios of random boxes, and whether each fits into the image."""
    rng = np.random.default_rng(1)
    area = height * width * rng.uniform(*scale, count)
    aspect = np.exp(rng.uniform(*np.log(ratio), count))
    fits = (np.rint((area * aspect) ** 0.5) <= width) & (np.rint((area / aspect) ** 0.5) <= height)
    return area, aspect, fits


def test_areas_are_uniform_aspect_ratios_log_uniform_and_positions_uniform(boxes):
    """In a square in which all boxes fit."""
    top, left, height, width = boxes(600, 600, (0.05, 0.24), (0.5, 2))
    area, aspect = height * width / 600**2, np.log2(width / height)
    down, across = top / (600 - height), left / (600 - width)
    assert deviation(area, 0.05, 0.24) < LIMIT
    assert deviation(aspect, -1, 1) < LIMIT
    assert deviation(down, 0, 1) < LIMIT and deviation(across, 0, 1) < LIMIT
    independent = np.corrcoef([area, aspect, down, across]) - np.eye(4)
    assert abs(independent).max() < 0.06


def test_every_position_is_equally_frequent(boxes):
    """Including both borders; boxes of 2×2 pixels in 4×6 have 3×5 places."""
    top, left, height, width = boxes(4, 6, (4 / 24, 4 / 24), (1, 1), count=3000)
    assert set(height) == set(width) == {2}
    places, counts = np.unique([top, left], axis=1, return_counts=True)
    assert places.T.tolist() == [[y, x] for y in range(3) for x in range(5)]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    for size in ((30, 1), (1, 30)):  # boxes of a single pixel
        top, left, _, _ = boxes(*size, (1 / 30, 1 / 30), (1, 1), count=300)
        assert set(top + left) == set(range(30))


@pytest.mark.parametrize("size", [(300, 200), (200, 300)])
def test_boxes_that_do_not_fit_are_sampled_again(boxes, size):
    _, _, height, width = boxes(*size, (0.2, 1.0), (0.5, 2))
    area, aspect, fits = fitting(*size, (0.2, 1.0), (0.5, 2))
    assert 0.5 < fits.mean() < 0.8
    for sample, expected in ((height * width, area), (width / height, aspect)):
        assert scipy.stats.ks_2samp(sample, expected[fits]).statistic < LIMIT


def test_the_tenth_box_that_does_not_fit_is_the_last(boxes):
    _, _, height, width = boxes(300, 100, (0.3, 1.0), (0.9, 1.0))
    _, _, fits = fitting(300, 100, (0.3, 1.0), (0.9, 1.0))
    expected = (1 - fits.mean()) ** 10
    assert 0.2 < expected < 0.6
    largest = (height == round(100 / 0.9)) & (width == 100)
    assert abs(largest.mean() - expected) < 0.02


@pytest.mark.parametrize(
    ("size", "ratio", "box"),
    [
        ((200, 10), (0.5, 3.0), (90, 0, 20, 10)),  # as tall as the ratio permits
        ((10, 200), (0.5, 3.0), (0, 85, 10, 30)),  # as wide
        ((12, 10), (1.0, 1.0), (1, 0, 10, 10)),  # the whole area would be a square of 11 pixels
    ],
)
def test_where_no_box_fits_the_largest_centered_one_is_used(boxes, size, ratio, box):
    np.testing.assert_array_equal(boxes(*size, (1.0, 1.0), ratio, count=5).T, [box] * 5)


def test_crops_of_tiny_images_have_at_least_one_pixel(boxes):
    assert set(boxes(3, 3, (1e-3, 1e-3), count=5)[2]) == {3}  # less than half a pixel
    assert boxes(1, 90, (1.0, 1.0), (0.1, 0.2), count=1).T.tolist() == [[0, 44, 1, 1]]
    assert boxes(90, 1, (1.0, 1.0), (5.0, 9.0), count=1).T.tolist() == [[44, 0, 1, 1]]
    np.testing.assert_array_equal(boxes(7, 7, (1.0, 1.0), (1.0, 1.0), 3).T, [[0, 0, 7, 7]] * 3)


def test_the_random_numbers_determine_the_box(boxes):
    first, again, other = (boxes(90, 120, (0.08, 1.0), count=50, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=1).T) == 50
    assert (first != other).any(axis=0).all()


@pytest.mark.peer
def test_boxes_have_torchvisions_distribution(boxes):
    transforms = peer("torchvision.transforms")
    import torch

    torch.manual_seed(0)
    image = torch.zeros(3, 320, 90)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(COUNT)]
    ).T
    for ours, expected in zip(boxes(320, 90, scale, ratio), theirs, strict=True):
        # The limit for two samples of this size.
        assert scipy.stats.ks_2samp(ours, expected).statistic < LIMIT * math.sqrt(2)


@pytest.mark.parametrize("size", [32, 75, 200])
def test_the_box_fills_the_result(size):
    """Rows and columns of a ramp are those of the box, also when it is enlarged."""
    ramp = np.stack([*np.mgrid[:200, :200], np.zeros((200, 200))], axis=2).astype(np.uint8)
    results = []
    for seed in range(20):
        crop = random_resized_crop(ramp, size, np.random.default_rng(seed), (0.1, 0.5))
        assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
        top, left = crop[0, 0, :2].astype(float)
        bottom, right = crop[-1, -1, :2].astype(float)
        results.append((top, left, bottom, right))
        assert 0.08 < (bottom - top) * (right - left) / 200**2 < 0.53
        assert 0.7 < (right - left) / (bottom - top) < 1.45
    assert len(set(results)) == 20
    aspects = [(right - left) / (bottom - top) for top, left, bottom, right in results]
    assert min(aspects) < 0.85 and max(aspects) > 1.2  # the usual ratios of 3/4…4/3


@pytest.mark.parametrize("shape", [(64, 64), (95, 95), (130, 97), (300, 140), (511, 480)])
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
