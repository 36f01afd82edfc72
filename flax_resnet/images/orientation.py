"""The orientation that an image file states: how its stored pixels are turned when decoded."""

import struct

from flax_resnet.images import headers, tiff
from flax_resnet.images.formats import detect_format

_INSPECT = {
    "JPEG": headers.inspect_jpeg,
    "PNG": headers.inspect_png,
    "WEBP": headers.inspect_webp,
}
_TAG = 274  # of TIFF, and of EXIF


def file_orientation(encoded: bytes) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 if it states none.

    Decoding applies it: 2 to 4 are half turns and mirror images, 5 to 8 exchange rows and columns.
    """
    if headers.plain_jpeg_shape(encoded):
        return 1
    kind = detect_format(encoded)
    try:
        if kind in _INSPECT:
            return _INSPECT[kind](encoded).orientation
        orientation = tiff.first_page(encoded).read(_TAG, 1) if kind == "TIFF" else 1
    except (headers.HeaderError, struct.error):
        return 1
    return orientation if 1 <= orientation <= 8 else 1
