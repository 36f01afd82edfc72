"""From encoded images to uint8 crops, on the host."""

from __future__ import annotations

import io
import math
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

# Threads decode different images; OpenCV's own threads inside one would only compete.
cv2.setNumThreads(0)

PNG = b"\x89PNG\r\n\x1a\n"
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class BadImage(ValueError):
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
        raise BadImage(f"{len(encoded):,} bytes that are no readable image: {reason}") from error


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
            raise BadImage(f"{len(encoded):,} bytes of PNG that claim {width}×{height} pixels")
    place, kind = len(PNG), b""
    while kind != b"IEND":
        if place + 12 > len(encoded):
            raise BadImage(f"{len(encoded):,} bytes of PNG, cut short or damaged")
        length, kind = struct.unpack_from(">I4s", encoded, place)
        place += 12 + length  # a length, a kind, so many bytes and a checksum
    if place > len(encoded):
        raise BadImage(f"{len(encoded):,} bytes of PNG, cut short or damaged")


def _decode_with_pillow(encoded: bytes) -> np.ndarray:
    """Decodes the formats that OpenCV lacks, and names what is wrong with a file."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = image.width * image.height
        # Even one colour all over takes a byte for some hundred pixels.
        if pixels > MAX_PIXELS or pixels > max(4_000_000, 1000 * len(encoded)):
            raise ValueError(f"it claims {image.width}×{image.height} pixels")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # which convert would cut off at 255
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))


def centre_crop(
    image: np.ndarray, size: int, resize: int, interpolation: str = "bilinear"
) -> np.ndarray:
    """Resizes the shorter side to ``resize`` and cuts the middle ``size``×``size``.

    As torchvision's ``Resize(resize)`` and ``CenterCrop(size)`` on a Pillow image, with
    antialiasing, but for rounding: only the part that is kept is resized, so that a picture as
    long as a ribbon costs no more than another. ``size`` is at most ``resize``.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    # Sizes after resizing, and where the crop begins there; rounded as torchvision does.
    new_height, new_width = int(resize * height / shorter), int(resize * width / shorter)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    if (new_height, new_width) == (height, width):
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    down, across = height / new_height, width / new_width
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    box = (*box[:2], min(box[2], width), min(box[3], height))  # against rounding
    cut = Image.fromarray(image).resize((size, size), RESAMPLING[interpolation], box)
    return np.asarray(cut)


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Cuts a box of a random share of the area and shape, and resizes it to ``size``×``size``.

    As in GoogLeNet's training (Szegedy et al. 2014, arXiv:1409.4842, section 6): the area's
    share is uniform in ``scale``, the ratio of width to height log-uniform in ``ratio``.
    After ten boxes that do not fit, the largest centred one of a permitted ratio is taken.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            break
    else:
        w = max(1, min(width, round(height * ratio[1])))
        h = max(1, min(height, round(width / ratio[0])))
        top, left = (height - h) // 2, (width - w) // 2
    return _resize(image[top : top + h, left : left + w], size)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to ``size``×``size``, quickly and without aliasing.

    Bilinear interpolation sees all pixels as long as it shrinks to no less than a half;
    before that, sides are halved by means of two, which is exact and as fast. OpenCV's
    INTER_AREA, for other shares than whole ones, takes longer than decoding the image.
    """
    while (by := tuple(2 if side >= 2 * size else 1 for side in image.shape[:2])) != (1, 1):
        height, width = (side // factor for side, factor in zip(image.shape, by, strict=False))
        even = image[: height * by[0], : width * by[1]]
        image = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
