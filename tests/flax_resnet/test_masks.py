"""Decoding of masks: values as stored, and refusals that say what to do."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from flax_resnet.decoding import ImageDecodeError, decode_mask

VALUES = np.random.default_rng(0).integers(0, 256, (13, 10), np.uint8)
COLORS = np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes()


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette(values):
    image = Image.fromarray(values, "P")
    image.putpalette(COLORS)
    return image


def raw_png(values, depth, color):
    """Write a PNG by its specification (ISO/IEC 15948), with values packed into ``depth`` bits."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(values), -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    if color == 3:
        parts.append(chunk(b"PLTE", COLORS[: 3 << depth]))
    parts += [chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("color", [0, 3], ids=["gray", "palette"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_values_of_all_bits_are_those_that_are_stored(depth, color):
    values = VALUES & np.uint8(2**depth - 1)
    np.testing.assert_array_equal(decode_mask(raw_png(values, depth, color)), values)


def test_files_of_other_programs_have_their_values():
    for encoded in (
        saved(palette(VALUES)),
        saved(palette(VALUES), transparency=0),
        saved(Image.fromarray(VALUES)),
        cv2.imencode(".png", VALUES)[1].tobytes(),
        cv2.imencode(".png", VALUES.astype(np.uint16))[1].tobytes(),
    ):
        decoded = decode_mask(encoded)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, VALUES)


def test_the_orientation_is_applied_as_to_images():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_mask(saved(Image.fromarray(VALUES), exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(VALUES, -1))


GRAY = Image.fromarray(VALUES)
NOISE = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (saved(GRAY, "JPEG"), r"must be a PNG, which keeps every value, not JPEG"),
        (b"GIF is not here", r"must be a PNG"),
        (saved(GRAY)[:60], r"truncated"),
        (saved(GRAY.convert("RGB")), r"gray values in three channels; save .* one of the channels"),
        (saved(GRAY.convert("LA")), r"gray values with an alpha; save masks as gray or palette"),
        (
            saved(palette(VALUES % 3).convert("RGB")),
            r"a mask of 3 colors \(#\w{6}, #\w{6}, #\w{6}\), whose classes are not known; save",
        ),
        (
            saved(Image.fromarray(NOISE)),
            r"more than 256 colors, not a mask",
        ),
        (
            cv2.imencode(".png", VALUES.astype(np.uint16) * 257)[1].tobytes(),
            r"a mask of 16 bits with the value \d\d,\d{3}; class numbers are at most 255",
        ),
    ],
)
def test_other_files_are_refused_with_the_reason(encoded, message):
    with pytest.raises(ImageDecodeError, match=message):
        decode_mask(encoded)
