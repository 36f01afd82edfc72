"""Preprocessing of images that are not square, of any number of channels and of 16 bits."""

import numpy as np
import pytest
from PIL import Image

from flax_resnet.preprocessing import Preprocessing, center_crop
from tests.flax_resnet.peers import peer
from tests.train.pictures import photograph


@pytest.mark.parametrize("shape", [(90, 210), (200, 100), (60, 100), (48, 60)])
def test_crops_that_are_not_square_are_those_of_timm(shape):
    image = photograph(1, *shape)
    transform = peer("timm").data.create_transform(
        (3, 24, 40), crop_pct=0.8, interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1)
    )
    expected = np.moveaxis(transform(Image.fromarray(image)).numpy(), 0, 2) * 255
    crop = center_crop(image, (24, 40), (30, 50), "bicubic")
    assert crop.shape == (24, 40, 3)
    assert np.abs(crop - expected).max() <= 1


def test_each_channel_is_resized_like_the_colors_of_an_image():
    one, other = photograph(1, 50, 70), photograph(2, 50, 70)
    both = center_crop(np.concatenate([one, other], axis=2), (24, 40), (28, 46), "bicubic")
    for part, image in ((both[..., :3], one), (both[..., 3:], other)):
        np.testing.assert_array_equal(part, center_crop(image, (24, 40), (28, 46), "bicubic"))
    gray = center_crop(one[..., :1], 20, 24)
    np.testing.assert_array_equal(gray, center_crop(one, 20, 24)[..., :1])


def test_values_of_16_bits_are_resized_in_16_bits():
    """A ramp stays a ramp, with steps of less than one of 8 bits; 65,535 does not overflow."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint16)[:, None, None] * 16 + 40_000, (64, 64, 2))
    crop = center_crop(ramp, 32, 32)
    assert crop.dtype == np.uint16 and crop.shape == (32, 32, 2)
    np.testing.assert_array_equal(np.diff(crop[4:-4].astype(int), axis=0), 32)
    edge = np.zeros((64, 64, 1), np.uint16)
    edge[:, 32:] = 65535
    crop = center_crop(edge, 20, 20, "bicubic")  # which overshoots at edges
    assert (crop[:, :5] == 0).all() and (crop[:, -5:] == 65535).all()


def test_training_sizes_keep_the_aspect_ratio():
    whole = Preprocessing((30, 50), (24, 40), "bilinear", (0.5,), (0.25,), bits=16)
    assert whole.at(24) == whole and whole.shorter_side == 24
    half = whole.at(12)
    assert (half.resize, half.image_size, half.shape) == ((15, 25), (12, 20), (12, 20, 1))
    assert whole.nbytes == 24 * 40 * 2


def test_normalized_values_of_16_bits_are_exact():
    values = np.array([0, 1, 257, 40_000, 65_535], np.uint16).reshape(1, 5, 1, 1)
    preprocessing = Preprocessing(5, 5, "bilinear", (0.25,), (0.5,), bits=16)
    expected = (values.astype(np.float64) / 65535 - 0.25) / 0.5
    np.testing.assert_allclose(preprocessing.normalize(values), expected, rtol=1e-6, atol=1e-7)
    # 8 bits are the same network input as the upper of 16: 257 times the value.
    as_8_bits = preprocessing.normalize(np.array([1], np.uint8).reshape(1, 1, 1, 1))
    np.testing.assert_allclose(as_8_bits.item(), expected[0, 2].item(), rtol=1e-6)
