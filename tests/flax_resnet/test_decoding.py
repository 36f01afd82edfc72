"""Decoding and the evaluation's crop, on the host."""

import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from flax_resnet import decoding
from flax_resnet.decoding import ImageDecodeError, decode_rgb
from flax_resnet.preprocessing import center_crop
from tests.train.pictures import encode, every_format, photograph

FORMATS = every_format()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_upright_rgb(name):
    encoded, expected, most = FORMATS[name]
    pixels = decode_rgb(encoded)
    assert pixels.dtype == np.uint8 and pixels.shape == expected.shape
    assert abs(pixels.astype(int) - expected).max() <= most


@pytest.mark.parametrize("name", FORMATS)
def test_pillow_alone_gives_the_same(name):
    """What OpenCV cannot read, or an older OpenCV, comes out alike."""
    encoded, expected, most = FORMATS[name]
    assert abs(decoding._decode_with_pillow(encoded).astype(int) - expected).max() <= most


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(ImageDecodeError, match=f"{len(data)} bytes"):
        decode_rgb(data)


@pytest.mark.parametrize("shape", [(8, 8), (9, 30), (31, 7), (100, 64), (5, 5)])
def test_centre_crop_keeps_the_middle(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)] = 255
    crop = center_crop(image, size=8, resize=10)
    assert crop.shape == (8, 8, 3)
    assert crop[4, 4, 0] == 255
    flipped = center_crop(image[:, ::-1], size=8, resize=10)
    assert abs(crop.astype(int) - flipped[:, ::-1]).max() <= 130  # within one pixel


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = center_crop(stripes, 8, 8)
    assert 120 <= crop.min() and crop.max() <= 135


@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (97, 97), (40, 400), (60, 91)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_centre_crop_is_resizing_and_cropping(shape, interpolation):
    """As torchvision does it: resize the whole picture by Pillow, then cut out the middle."""
    picture = photograph(3, *shape)
    size, resize = 64, 73
    shorter = min(shape)
    new = [int(resize * side / shorter) for side in shape]
    how = Image.Resampling[interpolation.upper()]
    whole = Image.fromarray(picture).resize(new[::-1], how)
    top, left = (round((side - size) / 2) for side in new)
    expected = np.asarray(whole)[top : top + size, left : left + size]
    crop = center_crop(picture, size, resize, interpolation)
    assert abs(crop.astype(int) - expected).max() <= 1


def test_a_ribbon_costs_no_more_memory_than_another_picture():
    start = time.monotonic()
    ribbon = np.zeros((2, 100_000, 3), np.uint8)  # 12.8 million pixels wide when it is 256 high
    assert center_crop(ribbon, 224, 256).shape == (224, 224, 3)
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


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    most, done = [0], threading.Event()

    def watch():
        while not done.wait(0.001):
            most[0] = max(most[0], memory())

    watcher = threading.Thread(target=watch)
    before = memory()
    watcher.start()
    with pytest.raises(ImageDecodeError, match="claim 30000×30000"):
        decode_rgb(png_header(30_000, 30_000))
    done.set()
    watcher.join()
    assert most[0] - before < 100e6


def test_large_photographs_are_decoded():
    """More pixels than OpenCV may decode here, but plausible ones."""
    wide = np.zeros((6000, 9000, 3), np.uint8)
    wide[:, ::2] = np.random.default_rng(0).integers(0, 256, (6000, 1, 3), np.uint8)
    assert decode_rgb(encode(wide, "JPEG", quality=30)).shape == (6000, 9000, 3)


def test_thousands_of_damaged_files_end_in_an_image_or_one_error():
    rng = np.random.default_rng(0)
    outcomes = {"image": 0, "refused": 0}
    for round_ in range(12):
        for encoded, *_ in FORMATS.values():
            broken = bytearray(encoded)
            kind = round_ % 4
            if kind == 0:
                broken = broken[: rng.integers(len(broken))]
            elif kind == 1:
                for place in rng.integers(0, len(broken), rng.integers(1, 20)):
                    broken[place] ^= 1 << rng.integers(8)
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
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "bmp", "gif", "cmyk.jpeg"])
def test_a_truncated_file_is_refused(name):
    encoded = FORMATS[name][0]
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(ImageDecodeError):
            decode_rgb(encoded[: int(share * len(encoded))])
