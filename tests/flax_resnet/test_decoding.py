"""Image decoding and the evaluation's center crop."""

import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from flax_resnet import decoding
from flax_resnet.decoding import ImageDecodeError, decode_rgb
from flax_resnet.preprocessing import Preprocessing, center_crop
from tests.train.pictures import encode, every_format, photograph

FORMATS = every_format()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_upright_rgb(name):
    encoded, expected, tolerance = FORMATS[name]
    pixels = decode_rgb(encoded)
    assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
    assert abs(pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("name", FORMATS)
def test_pillow_fallback_decodes_every_format(name, monkeypatch):
    """The result does not depend on OpenCV's support of a format."""
    encoded, expected, tolerance = FORMATS[name]
    monkeypatch.setattr(decoding, "_decode_with_opencv", lambda *_: None)
    monkeypatch.setattr(decoding, "_decode_jpeg", lambda *_: None)
    if name == "16bit.tiff":  # only OpenCV keeps all bits
        pytest.skip("needs OpenCV")
    assert abs(decode_rgb(encoded).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 48), (37, 51), (1, 17)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_jpeg_has_the_pixels_of_opencv_and_pillow(mode, size, subsampling, options):
    image = Image.fromarray(photograph(60, 60)).convert(mode).resize(size)
    encoded = encode(image, "jpeg", quality=85, subsampling=subsampling, **options)
    pixels = decode_rgb(encoded).astype(int)
    with Image.open(io.BytesIO(encoded)) as decoded:
        np.testing.assert_allclose(pixels, np.asarray(decoded.convert("RGB")), atol=1)
    opencv = decoding._decode_with_opencv(encoded, decoding._RGB)
    np.testing.assert_allclose(pixels, opencv, atol=1)


def test_jpeg_with_errors_is_decoded_by_opencv():
    """A JPEG has no checksums: most errors change the image, and libjpeg only warns."""
    encoded, rng, decoded = FORMATS["jpeg"][0], np.random.default_rng(0), 0
    for _ in range(100):
        corrupt = bytearray(encoded)
        corrupt[rng.integers(len(encoded) // 2, len(encoded))] ^= 1 << rng.integers(8)
        opencv = decoding._decode_with_opencv(bytes(corrupt), decoding._RGB)
        if opencv is not None:
            np.testing.assert_array_equal(decoding._decode_jpeg(bytes(corrupt)), opencv)
            decoded += 1
    assert decoded > 50


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_bytes_that_are_not_an_image_are_rejected(data):
    with pytest.raises(ImageDecodeError, match=f"{len(data)} bytes"):
        decode_rgb(data)


@pytest.mark.parametrize("shape", [(8, 8), (9, 30), (31, 7), (100, 64), (5, 5)])
def test_center_crop_keeps_the_center(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)] = 255
    crop = center_crop(image, size=8, resize=10)
    assert crop.shape == (8, 8, 3)
    assert crop[4, 4, 0] == 255
    flipped = center_crop(image[:, ::-1], size=8, resize=10)
    assert abs(crop.astype(int) - flipped[:, ::-1]).max() <= 130  # within one pixel


def test_downscaling_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = center_crop(stripes, 8, 8)
    assert 120 <= crop.min() and crop.max() <= 135


@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (97, 97), (40, 400), (60, 91), (73, 91)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_crop_equals_resizing_and_cropping(shape, interpolation):
    """As in torchvision: resize the whole image with Pillow, then crop the center."""
    picture = photograph(3, *shape)
    size, resize = 64, 73
    shorter = min(shape)
    new = [int(resize * side / shorter) for side in shape]
    resampling = Image.Resampling[interpolation.upper()]
    whole = Image.fromarray(picture).resize(new[::-1], resampling)
    top, left = (round((side - size) / 2) for side in new)
    expected = np.asarray(whole)[top : top + size, left : left + size]
    crop = center_crop(picture, size, resize, interpolation)
    assert abs(crop.astype(int) - expected).max() <= 1


def test_another_size_keeps_the_crop_fraction():
    other = Preprocessing(256, 224, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).at(160)
    assert (other.resize, other.image_size) == (183, 160)  # 7 / 8, rounded
    assert (other.mean, other.interpolation) == ((0.5, 0.4, 0.3), "bicubic")


def test_extreme_aspect_ratio_is_cropped_cheaply():
    start = time.monotonic()
    wide = np.zeros(
        (2, 100_000, 3), np.uint8
    )  # resized to a height of 256 it would be 12.8 million pixels wide
    assert center_crop(wide, 224, 256).shape == (224, 224, 3)
    assert time.monotonic() - start < 2


def png_header(width, height):
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_decompression_bomb_is_rejected_before_decoding():
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.001):
            peak[0] = max(peak[0], memory())

    watcher = threading.Thread(target=watch)
    before = memory()
    watcher.start()
    with pytest.raises(ImageDecodeError, match="cannot hold the claimed 30000×30000 pixels"):
        decode_rgb(png_header(30_000, 30_000))
    done.set()
    watcher.join()
    assert peak[0] - before < 100e6


def test_large_photographs_are_decoded():
    """With more pixels than OpenCV's limit."""
    wide = np.zeros((6000, 9000, 3), np.uint8)
    wide[:, ::2] = np.random.default_rng(0).integers(0, 256, (6000, 1, 3), np.uint8)
    assert decode_rgb(encode(wide, "JPEG", quality=30)).shape == (6000, 9000, 3)


def test_corrupt_files_decode_or_raise_image_decode_error():
    rng = np.random.default_rng(0)
    outcomes = {"image": 0, "rejected": 0}
    for round_ in range(12):
        for encoded, *_ in FORMATS.values():
            broken = bytearray(encoded)
            kind = round_ % 4
            if kind == 0:
                broken = broken[: rng.integers(len(broken))]
            elif kind == 1:
                for offset in rng.integers(0, len(broken), rng.integers(1, 20)):
                    broken[offset] ^= 1 << rng.integers(8)
            elif kind == 2:
                broken[: rng.integers(1, 40)] = rng.bytes(8)
            else:
                start = rng.integers(len(broken))
                broken[start : start + rng.integers(200)] = bytes(200)
            try:
                pixels = decode_rgb(bytes(broken))
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
                outcomes["image"] += 1
            except ImageDecodeError as error:
                assert "\n" not in str(error)
                outcomes["rejected"] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "bmp", "gif", "cmyk.jpeg"])
def test_truncated_file_is_rejected(name):
    encoded = FORMATS[name][0]
    for fraction in (0.3, 0.6, 0.9):
        with pytest.raises(ImageDecodeError):
            decode_rgb(encoded[: int(fraction * len(encoded))])
