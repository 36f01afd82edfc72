"""Images of any number of channels and 16 bits are decoded to the values that were written."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from flax_resnet.decoding import ImageDecodeError, array_to_pixels, cv2, decode_image, decode_rgb
from flax_resnet.images.pixels import PixelFormat
from flax_resnet.preprocessing import to_viewable
from tests.flax_resnet.odd_images import exif, tiff
from tests.train.pictures import encode, photograph

RGB = photograph(0, 37, 50)


def values(channels, bits, height=37, width=50):
    dtype = PixelFormat(channels, bits).dtype
    rng = np.random.default_rng(channels)
    return rng.integers(0, 2**bits, (height, width, channels)).astype(dtype)


def tifffile_bytes(array, **options):
    buffer = io.BytesIO()
    planar = options.get("planarconfig") == "separate"
    array = np.moveaxis(array, 2, 0) if planar else array
    options = {"photometric": "minisblack", "planarconfig": "contig"} | options
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(array):
    channels = array.shape[2]
    array = array[..., [2, 1, 0, 3][:channels]] if channels > 1 else array
    return cv2.imencode(".png", array)[1].tobytes()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 5, 12, 16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 10, "byteorder": ">"},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"compression": "zlib", "predictor": True, "tile": (16, 32)},
        {"planarconfig": "separate", "compression": "zlib", "rowsperstrip": 9},
        {"planarconfig": "separate", "tile": (32, 16), "predictor": True, "compression": "zlib"},
        {"bigtiff": True, "rowsperstrip": 1},
    ],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
def test_tiff_of_any_channels_has_the_values_that_tifffile_wrote(channels, bits, options):
    array = values(channels, bits)
    decoded = decode_image(tifffile_bytes(array, **options), PixelFormat(channels, bits))
    assert decoded.dtype == array.dtype and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, array)


def test_tiff_compressed_by_lzw_and_turned(tmp_path):
    """As Pillow writes and reads it: with differences, several strips, and four channels."""
    array, path = values(4, 8, 300, 200), tmp_path / "four.tif"
    tags = {317: 2, 278: 64, 274: 6}
    Image.fromarray(array).save(path, compression="tiff_lzw", tiffinfo=tags)
    decoded = decode_image(path.read_bytes(), PixelFormat(4, 8))
    np.testing.assert_array_equal(decoded, np.rot90(array, -1))
    deep = decode_image(path.read_bytes(), PixelFormat(4, 16))
    np.testing.assert_array_equal(deep, decoded * np.uint16(257))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_has_the_values_that_were_written(channels):
    array = values(channels, 16)
    if channels == 2:
        upper = (array >> 8).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(upper, "LA").save(file, "PNG")
        np.testing.assert_array_equal(decode_image(file.getvalue(), PixelFormat(2, 8)), upper)
        return
    np.testing.assert_array_equal(decode_image(png(array), PixelFormat(channels, 16)), array)
    # Dark images are not brighter: 12-bit values stay what they are.
    dark = array >> 4
    np.testing.assert_array_equal(decode_image(png(dark), PixelFormat(channels, 16)), dark)
    upper = (array >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(png(array), PixelFormat(channels, 8)), upper)


def test_alpha_of_gray_and_rgb_is_ignored_and_files_of_8_bits_are_scaled():
    array = values(4, 16)
    np.testing.assert_array_equal(decode_image(png(array), PixelFormat(3, 16)), array[..., :3])
    rgb = PixelFormat(3, 16)
    for kind in ("PNG", "JPEG", "WEBP"):
        file = encode(RGB, kind)
        np.testing.assert_array_equal(decode_image(file, rgb), decode_rgb(file) * np.uint16(257))


def test_gray_and_colors_are_converted_to_each_other():
    noted = []
    gray = PixelFormat(1, 8)
    file = encode(RGB, "PNG")
    decoded = decode_image(file, gray, lambda kind, text: noted.append(text))
    expected = np.asarray(Image.fromarray(RGB).convert("L"))
    np.testing.assert_array_equal(decoded[..., 0], expected)
    assert "luma" in noted.pop()
    file = encode(expected, "PNG")
    for form in (gray, PixelFormat(1, 16)):
        again = decode_image(file, form, lambda kind, text: noted.append(text))
        np.testing.assert_array_equal(again // (form.max_value // 255), decoded)
    assert not noted  # nothing was converted
    np.testing.assert_array_equal(decode_image(file, PixelFormat(3, 16))[..., 1:2], again)
    white = np.full((5, 6, 3), 65535, np.uint16)
    assert (decode_image(png(white), PixelFormat(1, 16)) == 65535).all()


def test_orientation_of_a_png_of_16_bits():
    array = values(1, 16)
    file = png(array)
    position = 8 + 25  # after the header
    turned = file[:position] + exif_chunk(6) + file[position:]
    np.testing.assert_array_equal(decode_image(turned, PixelFormat(1, 16)), np.rot90(array, -1))


def exif_chunk(orientation):
    data = exif(orientation)
    body = b"eXIf" + data.removeprefix(b"Exif\0\0")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    "encoded, channels, bits, message",
    [
        (encode(RGB, "JPEG"), 12, 8, "it has 3 channels, not 12"),
        (tifffile_bytes(values(12, 16)), 5, 16, "it has 12 channels, not 5"),
        (tifffile_bytes(values(12, 16)), 1, 16, "it has 12 channels, not 1"),
        (tifffile_bytes(values(4, 16).astype(np.float32)), 4, 16, "32-bit floats"),
        (tifffile_bytes(values(12, 16))[:-20], 12, 16, "truncated or corrupt"),
        (tifffile_bytes(values(12, 16), compression="zlib")[:-900], 12, 16, "truncated"),
        (tiff(values(12, 16), 1, tags={256: (4, [2**20])}), 12, 16, "truncated|claims"),
        (png(values(1, 16))[:-30], 1, 16, "truncated"),
        (encode(RGB, "JPEG2000"), 3, 16, "JPEG2000 is read with 8 bits"),
        (b"P6 1 1 255 abc", 2, 8, "PNM is read with 8 bits and 1 or 3 channels only"),
        (b"<svg>", 2, 16, "SVG"),
    ],
)
def test_what_cannot_be_read_is_refused(encoded, channels, bits, message):
    with pytest.raises(ImageDecodeError, match=message) as caught:
        decode_image(encoded, PixelFormat(channels, bits))
    assert "\n" not in str(caught.value)


def test_damaged_files_of_many_channels_are_refused_or_decoded():
    """A byte changed anywhere in the header and tags never raises another error."""
    file = tifffile_bytes(values(12, 16, 8, 9), compression="zlib", predictor=True)
    rng = np.random.default_rng(0)
    for position in range(0, min(len(file), 420)):
        damaged = bytearray(file)
        damaged[position] ^= int(rng.integers(1, 256))
        try:
            assert decode_image(bytes(damaged), PixelFormat(12, 16)).shape[2] == 12
        except ImageDecodeError:
            pass


def test_arrays_are_taken_as_they_are():
    form = PixelFormat(12, 16)
    array = values(12, 16)
    assert array_to_pixels(array, form) is array or (array_to_pixels(array, form) == array).all()
    swapped = array.astype(">u2")
    np.testing.assert_array_equal(array_to_pixels(swapped, form), array)
    np.testing.assert_array_equal(
        array_to_pixels(values(12, 8), form), values(12, 8) * np.uint16(257)
    )
    np.testing.assert_array_equal(
        array_to_pixels(values(1, 8)[..., 0], PixelFormat(1, 8)), values(1, 8)
    )
    for wrong, match in (
        (values(11, 16), "11 channels, not 12"),
        (values(12, 16).astype(float), "must be uint8 or uint16"),
        (np.moveaxis(array, 2, 0), "50 channels, not 12"),
        (array[:0], "is not an image"),
    ):
        with pytest.raises(ImageDecodeError, match=match):
            array_to_pixels(wrong, form)
    with pytest.raises(ImageDecodeError, match="must be uint8"):
        array_to_pixels(array, PixelFormat(12, 8))


def test_viewable_images():
    np.testing.assert_array_equal(to_viewable(RGB), RGB)
    twelve = values(12, 8)
    np.testing.assert_array_equal(to_viewable(twelve), twelve[..., :3])
    gray = to_viewable(values(1, 8))
    np.testing.assert_array_equal(gray, np.repeat(values(1, 8), 3, axis=2))
    dark = np.array([0, 100, 200], np.uint16).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(to_viewable(dark)[0, 0, :, 0], [0, 127, 255])
