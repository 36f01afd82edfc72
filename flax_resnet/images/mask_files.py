"""Masks for segmentation as PNG files, and pictures with the colors of their classes."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def _colormap() -> np.ndarray:
    """Return the colors of Pascal VOC: bit k of the class is bit 7 - k // 3 of channel k % 3."""
    colors = np.zeros((256, 3), np.uint8)
    for k in range(8):
        bit = np.arange(256) >> k & 1
        colors[:, k % 3] |= (bit << 7 - k // 3).astype(np.uint8)
    return colors


COLORS = _colormap()  # of the classes, uint8 (256, 3); class 0 is black


def encode_mask(classes: np.ndarray) -> bytes:
    """Return a palette PNG whose values are the classes uint8 ``(H, W)``, in :data:`COLORS`.

    :func:`flax_resnet.decoding.decode_mask` returns the classes.
    """
    return _encode(classes)


def encode_overlay(classes: np.ndarray, opacity: float) -> bytes:
    """Return a PNG of the colors of the classes uint8 ``(H, W)``, to lay over their picture.

    Class 0 is transparent, and the others have an opacity in 0…1.
    """
    return _encode(classes, transparency=bytes([0, *[round(255 * opacity)] * 255]), optimize=True)


def _encode(classes: np.ndarray, **options: Any) -> bytes:
    image = Image.fromarray(classes)
    image.putpalette(COLORS.tobytes())  # all 256 colors, so that values are stored in 8 bits
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


_HEADER_BYTES = 33  # of a PNG: its signature and the chunk IHDR
_SOFTWARE = b"tEXtSoftware\0flax-resnet"


def sign_png(png: bytes) -> bytes:
    """Return a PNG that names this package as the software which wrote it."""
    length = len(_SOFTWARE) - len(b"tEXt")
    chunk = struct.pack(">I", length) + _SOFTWARE + struct.pack(">I", zlib.crc32(_SOFTWARE))
    return png[:_HEADER_BYTES] + chunk + png[_HEADER_BYTES:]


def is_signed_png(path: str) -> bool:
    """Return whether a file is a PNG of :func:`sign_png`; other programs drop its text."""
    with open(path, "rb") as file:
        head = file.read(_HEADER_BYTES + 4 + len(_SOFTWARE))
    return head.endswith(_SOFTWARE)


def color_classes(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return a picture half covered by the colors of its classes, but not by class 0.

    Args:
      image: uint8 RGB ``(H, W, 3)``.
      classes: uint8 ``(H, W)``.
    """
    covered = image // 2
    covered += (COLORS // 2)[classes]
    return np.where((classes == 0)[..., None], image, covered)
