"""Decoding of images to uint8 pixels on the host. Needs OpenCV and Pillow."""

import io
import os
import struct

# A header that claims more pixels than any photograph is malicious or corrupt. OpenCV allocates
# whatever the header claims, so it is limited to 50 megapixels; Pillow decodes larger images after
# a check of the header. OpenCV reads both variables when it is imported.
MAX_PIXELS = 178_956_970  # twice Pillow's MAX_IMAGE_PIXELS; above this, Pillow raises an error
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # ImageDecodeError reports the reason

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: E402

from flax_resnet.images.formats import describe_format, detect_format  # noqa: E402
from flax_resnet.text import OneLineError, error_reason  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


_PILLOW = {"PNM": ("PPM",)}  # Pillow's names, where they differ


class ImageDecodeError(OneLineError):
    """The bytes are not a readable image; the message gives the reason."""


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decode JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF to uint8 RGB ``(H, W, 3)``.

    The format is detected from the content. The EXIF orientation is applied; gray images get
    three equal channels, palette images their colors, and 16-bit values are reduced to their upper
    8 bits; CMYK is converted to RGB, and transparency is ignored.

    Raises:
      ImageDecodeError: if the bytes are not an image, are truncated, or claim more than
        ``MAX_PIXELS`` or more pixels than their length can encode.
    """
    pixels = None
    kind = detect_format(encoded)
    if kind is None:  # no library gets to see it
        raise ImageDecodeError(
            f"{len(encoded):,} bytes are not a readable image: {describe_format(encoded)}"
        )
    if kind == "PNG":
        _check_png(encoded)
    if kind not in ("AVIF", "JPEG2000"):
        try:
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # too many pixels; Pillow reports how many
            pass
    if pixels is not None:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    try:
        return _decode_with_pillow(encoded, kind)
    except Exception as error:  # Pillow raises many types
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "unknown format" if unknown else error_reason(error)
        raise ImageDecodeError(
            f"{len(encoded):,} bytes are not a readable image: {reason}"
        ) from error


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode a file; see :func:`decode_rgb`.

    Raises:
      ImageDecodeError: if it cannot be read or decoded; the message names the file.
    """
    try:
        with open(path, "rb") as file:
            return decode_rgb(file.read())
    except (OSError, ImageDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ImageDecodeError(f"{os.fspath(path)}: {reason}") from error


def _check_png(encoded: bytes) -> None:
    """Raise ImageDecodeError if a PNG claims more data than it holds.

    For a corrupt length in the header or a chunk, OpenCV may allocate gigabytes before it detects
    the error.
    """
    if len(encoded) >= 26:
        width, height, depth, color = struct.unpack(">IIBB", encoded[16:26])
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 1)
        # Deflate compresses by a factor of at most 1,032.
        if width * height * channels * depth / 8 > 1032 * len(encoded):
            raise ImageDecodeError(
                f"{len(encoded):,} bytes of PNG cannot hold the claimed {width}×{height} pixels"
            )
    offset, kind = len(PNG), b""
    while kind != b"IEND" and offset + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, offset)
        offset += 12 + length  # length, type, data and checksum
    if kind != b"IEND" or offset > len(encoded):
        raise ImageDecodeError(f"{len(encoded):,} bytes of PNG are truncated or corrupt")


def _decode_with_pillow(encoded: bytes, kind: str) -> np.ndarray:
    """Decode formats that OpenCV does not support, or raise an error with the reason."""
    with Image.open(io.BytesIO(encoded), formats=_PILLOW.get(kind, (kind,))) as image:
        pixels = image.width * image.height
        # Even an image of one color needs a byte for several hundred pixels.
        if pixels > MAX_PIXELS or pixels > max(4_000_000, 1000 * len(encoded)):
            raise ValueError(f"the header claims {image.width}×{image.height} pixels")
        return pillow_to_rgb(image)


def pillow_to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to RGB as :func:`decode_rgb` does."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert would clip it at 255
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))
