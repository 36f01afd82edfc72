"""Records whose images are arrays instead of encoded bytes."""

import numpy as np
import pytest

from flax_resnet.decoding import ImageDecodeError
from train.data.images import encode_png
from train.data.source import DataSource

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def decoded(image):
    return DataSource("own", "train", ("a", "b"), [{"image": image, "label": 1}]).decode(0)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., 0], PIXELS[::-1, ::2]])
def test_an_array_gives_the_pixels_of_its_png(pixels):
    expected, label = decoded(encode_png(pixels))
    image, _ = decoded(pixels)
    np.testing.assert_array_equal(image, expected)
    assert (image.dtype, label) == (np.uint8, 1)


def test_gray_may_have_an_axis_of_channels():
    np.testing.assert_array_equal(decoded(PIXELS[..., :1])[0], decoded(PIXELS[..., 0])[0])


@pytest.mark.parametrize(
    "pixels", [PIXELS / 255, PIXELS[0, 0], PIXELS[..., :2], PIXELS[:0], np.zeros((3, 4, 5), "u1")]
)
def test_other_arrays_are_corrupt_records(pixels):
    with pytest.raises(ImageDecodeError, match="array"):
        decoded(pixels)
