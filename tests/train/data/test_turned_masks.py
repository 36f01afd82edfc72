"""Masks of images that are turned by their EXIF orientation stay aligned with them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from flax_resnet.decoding import ImageDecodeError
from tests.train.data.masked import mask, png
from tests.train.pictures import encode, rotated
from train.data.masks import MaskSource

TURNS = (5, 6, 7, 8)  # orientations that exchange rows and columns
STORED = mask(2, 24, 40)  # of the stored pixels; no symmetry maps it to itself


def colors(classes):
    """Return a picture whose colors are the classes of its pixels."""
    return np.repeat(classes[..., None] * 100, 3, axis=2).astype(np.uint8)


def decoded(kind, orientation, mask_file, stored=STORED):
    """Return the classes that the colors of a turned picture have, its mask, and the warnings."""
    options = {"lossless": True} if kind == "WEBP" else {}
    options |= {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = encode(colors(stored), kind, exif=rotated(orientation), **options)
    warnings = []
    records = [{"image": picture, "label": mask_file}]
    source = MaskSource("x", "train", ("a", "b", "c"), records)
    image, classes = source.decode(0, lambda kind, text: warnings.append((kind, text)))
    with Image.open(io.BytesIO(picture)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_allclose(image.astype(int), upright, atol=40)
    return np.round(upright[..., 0] / 100).astype(np.uint8), classes, warnings


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_mask_of_the_stored_size_is_an_error_with_the_reason(kind, orientation):
    message = (
        "the mask has 40×24 pixels, the image 24×40: the image is turned by its EXIF orientation,"
        f" {orientation}, and the mask is not; turn it, too, or store the image upright"
    )
    with pytest.raises(ImageDecodeError, match=message):
        decoded(kind, orientation, png(STORED))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_of_the_image_as_it_is_shown_is_used_as_it_is(orientation):
    shown = decoded("PNG", orientation, png(STORED, exif=rotated(orientation)))[0]
    expected, classes, warnings = decoded("PNG", orientation, png(shown))
    np.testing.assert_array_equal(classes, expected)
    if orientation in TURNS:
        assert warnings == []
    else:  # it might also be a mask of the stored pixels
        [(name, text)] = warnings
        assert name == "turned image" and "store the image upright" in text


@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_square_is_warned_of(orientation):
    square = np.ascontiguousarray(STORED[:, :24])
    _, classes, warnings = decoded("PNG", orientation, png(square), square)
    np.testing.assert_array_equal(classes, square)
    assert [name for name, _ in warnings] == ["turned image"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_with_an_orientation_of_its_own_is_turned_by_that(orientation):
    expected, classes, warnings = decoded(
        "JPEG", orientation, png(STORED, exif=rotated(orientation))
    )
    np.testing.assert_array_equal(classes, expected)
    assert warnings == []
