"""From encoded images to uint8 pixels, on the host. Needs OpenCV and Pillow."""

from __future__ import annotations

import io
import os
import struct

# A file that claims more pixels than photographs have is an attack or damaged. OpenCV, which
# gives memory to all that a file claims, decodes no more than 50 megapixels; Pillow, after a look
# at the claim, more than that. OpenCV reads both of these when it is imported.
MAX_PIXELS = 178_956_970  # Pillow's own limit
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # BadImage tells what cannot be decoded

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


class ImageDecodeError(ValueError):
    """Bytes that are no readable image, and why."""


def decode_rgb(encoded: bytes) -> np.ndarray:
    """Decodes JPEG, PNG, WebP, BMP, GIF (its first frame), TIFF to uint8 RGB ``(H, W, 3)``.

    Upright, whatever its EXIF orientation; grey images get three equal channels, palettes
    their colours, 16-bit values their upper 8 bits, CMYK becomes RGB, and transparency is left
    out. What the bytes are is told by themselves, not by a name.

    Raises BadImage for bytes that are no image, are cut short, or claim more than
    ``MAX_PIXELS``, or so many that they cannot hold them.
    """
    pixels = None
    if encoded.startswith(PNG):
        _check_png(encoded)
    if encoded:
        try:
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # too many pixels; Pillow says how many
            pass
    if pixels is not None:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    try:
        return _decode_with_pillow(encoded)
    except Exception as error:  # Pillow raises many kinds
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else str(error) or type(error).__name__
        raise ImageDecodeError(
            f"{len(encoded):,} bytes that are no readable image: {reason}"
        ) from error


def read_rgb(path: str | os.PathLike[str]) -> np.ndarray:
    """A file as :func:`decode_rgb` gives it. Raises BadImage, which names the file."""
    try:
        with open(path, "rb") as file:
            return decode_rgb(file.read())
    except (OSError, ImageDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ImageDecodeError(f"{os.fspath(path)}: {reason}") from error


def _check_png(encoded: bytes) -> None:
    """Raises BadImage for a PNG that claims more than its bytes hold.

    OpenCV gives memory, up to gigabytes, to the length that a damaged header or chunk claims,
    before it finds that out.
    """
    if len(encoded) >= 26:
        width, height, depth, colour = struct.unpack(">IIBB", encoded[16:26])
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
        # Deflate shortens to a 1,032nd at most.
        if width * height * channels * depth / 8 > 1032 * len(encoded):
            raise ImageDecodeError(
                f"{len(encoded):,} bytes of PNG that claim {width}×{height} pixels"
            )
    place, kind = len(PNG), b""
    while kind != b"IEND":
        if place + 12 > len(encoded):
            raise ImageDecodeError(f"{len(encoded):,} bytes of PNG, cut short or damaged")
        length, kind = struct.unpack_from(">I4s", encoded, place)
        place += 12 + length  # a length, a kind, so many bytes and a checksum
    if place > len(encoded):
        raise ImageDecodeError(f"{len(encoded):,} bytes of PNG, cut short or damaged")


def _decode_with_pillow(encoded: bytes) -> np.ndarray:
    """Decodes the formats that OpenCV lacks, and names what is wrong with a file."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = image.width * image.height
        # Even one colour all over takes a byte for some hundred pixels.
        if pixels > MAX_PIXELS or pixels > max(4_000_000, 1000 * len(encoded)):
            raise ValueError(f"it claims {image.width}×{image.height} pixels")
        return pillow_to_rgb(image)


def pillow_to_rgb(image: Image.Image) -> np.ndarray:
    """An image of Pillow's as :func:`decode_rgb` gives its file."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # which convert would cut off at 255
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))
