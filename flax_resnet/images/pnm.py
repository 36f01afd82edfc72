"""Portable bitmaps, graymaps and pixmaps (Netpbm), which store the largest value."""

import re

import numpy as np

from flax_resnet.images.headers import HeaderError, ImageHeader

_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_BITMAP = re.compile(rb"P([14])" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})\s")
_PIXMAP = re.compile(
    rb"P([2356])" + (_SPACE + rb"(\d{1,9})") * 3 + rb"\s"  # width, height, maximum
)
_MAX_DIGITS = 9  # of a value


def inspect_pnm(encoded: bytes) -> tuple[ImageHeader, re.Match[bytes]]:
    """Return the header and its match."""
    match = (_BITMAP if encoded[1:2] in b"14" else _PIXMAP).match(encoded)
    if match is None:
        raise HeaderError("the header of the Netpbm image is corrupt")
    width, height = int(match[2]), int(match[3])
    maximum = int(match[4]) if match.re is _PIXMAP else 1
    if not 1 <= maximum <= 65535:
        raise HeaderError(f"the Netpbm image has a largest value of {maximum}")
    return ImageHeader(width, height, plain=False, depth=16 if maximum > 255 else 8), match


def decode_pnm(encoded: bytes, match: re.Match[bytes]) -> np.ndarray:
    """Return uint8 gray ``(H, W, 1)`` or RGB ``(H, W, 3)``; the largest value becomes 255."""
    kind, width, height = (int(match[group]) for group in (1, 2, 3))
    maximum = int(match[4]) if match.re is _PIXMAP else 1
    channels = 3 if kind in (3, 6) else 1
    shape, count = (height, width, channels), height * width * channels
    body = memoryview(encoded)[match.end() :]
    if kind == 4:
        row = -(-width // 8)
        bits = np.unpackbits(_values(body, np.uint8, height * row).reshape(height, row), axis=1)
        return ((1 - bits[:, :width]) * np.uint8(255)).reshape(shape)
    if kind == 1:  # digits need no space between them
        digits = re.sub(rb"#[^\r\n]*", b"", body).translate(None, b" \t\n\v\f\r")
        values = 1 - (_values(digits, np.uint8, count) - ord("0"))
    elif kind in (2, 3):
        words = re.sub(rb"#[^\r\n]*", b"", body).split(None, count)[:count]
        # One long word would make all elements of the array as long.
        complete = len(words) == count and max(map(len, words)) <= _MAX_DIGITS
        values = np.array(words, np.bytes_).astype(np.int64) if complete else None
    else:
        values = _values(body, np.uint8 if maximum < 256 else ">u2", count)
    if values is None or (values.size and (values.min() < 0 or values.max() > maximum)):
        raise HeaderError("the Netpbm image is truncated or corrupt")
    if maximum == 255:
        return values.astype(np.uint8).reshape(shape)
    if maximum == 65535:  # as for the other formats
        return (values >> 8).astype(np.uint8).reshape(shape)
    scale = np.round(np.arange(maximum + 1) * (255 / maximum)).astype(np.uint8)
    return scale[values].reshape(shape)


def _values(body: memoryview | bytes, dtype: np.typing.DTypeLike, count: int) -> np.ndarray:
    if len(body) < count * np.dtype(dtype).itemsize:
        raise HeaderError("the Netpbm image is truncated or corrupt")
    return np.frombuffer(body, dtype, count)
