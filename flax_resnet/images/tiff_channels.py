"""The values of a TIFF file of any number of channels.

Neither OpenCV nor Pillow reads more than four. But the bytes of n channels, whether stored by pixel
or in planes, are those of gray images: one of n times the width, or n. So the file is written
again as gray images, which OpenCV decompresses.
"""

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flax_resnet.images.headers import HeaderError
from flax_resnet.images.pixels import MAX_CHANNELS
from flax_resnet.images.tiff import MIN_IS_WHITE, Directory, first_page, read_depth

_NONE, _PACK_BITS = 1, 32773
_PREDICTED = {5: "LZW", 8: "deflate", 32946: "deflate", 34925: "LZMA", 50000: "Zstandard"}
_ALPHA = {1, 2}  # multiplied with the colors, or not
_MULTIPLIED = 1

Decode = Callable[[bytes], np.ndarray | None]  # a gray image


class StoredValues(NamedTuple):
    """The values of an image as a file stores them.

    Attributes:
      values: uint8 or uint16 ``(H, W, C)``; 0 is black.
      colors: number of leading channels that are gray or RGB, the others being an alpha; all
        channels if that is not so.
      orientation: EXIF orientation, to be applied.
      profile: the ICC profile, or ``b""``.
      associated_alpha: whether colors are multiplied with the alpha.
    """

    values: np.ndarray
    colors: int
    orientation: int = 1
    profile: bytes = b""
    associated_alpha: bool = False


def read_channels(
    encoded: bytes, check_size: Callable[[int, int], None], decode: Decode
) -> StoredValues | None:
    """Return the values of the first page; None if they are indices or colors of another space.

    Args:
      encoded: the file.
      check_size: raises HeaderError if a width and a height are too large.
      decode: decodes a gray TIFF file of 8 or 16 bits.

    Raises:
      HeaderError: the file is corrupt, or of a kind that is not supported.
    """
    try:
        tags = first_page(encoded)
        photometric, samples = tags.read(262, MIN_IS_WHITE), tags.read(277, 1)
        depth = read_depth(tags, photometric, samples, MAX_CHANNELS + 1)  # and an alpha
        base = 3 if photometric == 2 else 1
        if photometric > 2 or depth < 8:
            return None
        width, height = tags.read(256), tags.read(257)
        check_size(width * samples, height)
        values = _read_values(encoded, tags, (height, width, samples), depth, decode)
        extra = tags.read_all(338)
        profile = tags.read_bytes(34675)
    except struct.error:
        raise HeaderError("the TIFF is truncated or corrupt") from None
    if photometric == MIN_IS_WHITE:
        values = (2**depth - 1) - values
    has_alpha = samples == base + 1 and bool(_ALPHA & {*extra})
    orientation = tags.read(274, 1)
    return StoredValues(
        values,
        base if has_alpha else samples,
        orientation if orientation <= 8 else 1,
        profile,
        has_alpha and _MULTIPLIED in extra,
    )


def _read_values(
    encoded: bytes, tags: Directory, shape: tuple[int, int, int], depth: int, decode: Decode
) -> np.ndarray:
    height, width, samples = shape
    compression, predictor = tags.read(259, _NONE), tags.read(317, 1)
    if depth not in (8, 16) or compression not in (_NONE, _PACK_BITS, *_PREDICTED):
        raise HeaderError(
            f"a TIFF of {samples} channels of {depth} bits with compression {compression} is not"
            " supported; save it with 8 or 16 bits, uncompressed or with deflate"
        )
    if compression not in _PREDICTED:
        predictor = 1
    if predictor not in (1, 2):
        raise HeaderError(f"a TIFF with predictor {predictor} is not supported")
    planar = samples > 1 and tags.read(284, 1) == 2
    across = 1 if planar else samples  # values beside each other
    tiled = 322 in tags
    if tiled:
        columns, rows = tags.read(322), tags.read(323)
        layout = {322: [columns * across], 323: [rows]}
    else:
        columns, rows = width, min(tags.read(278, height), height)
        layout = {278: [rows]}
    if min(columns, rows) < 1 or columns * rows > max(2**24, 4 * width * height):
        raise HeaderError("the TIFF is truncated or corrupt")
    offsets, counts = tags.read_all(324 if tiled else 273), tags.read_all(325 if tiled else 279)
    parts = -(-width // columns) * -(-height // rows)
    planes = samples if planar else 1
    if not len(offsets) == len(counts) == parts * planes or sum(counts) > len(encoded):
        raise HeaderError("the TIFF is truncated or corrupt")
    values = np.empty((planes, height, width * across), np.uint8 if depth == 8 else np.uint16)
    described = {256: [width * across], 257: [height], 258: [depth], 259: [compression], 262: [1]}
    described |= {266: [tags.read(266, 1)], 277: [1]} | layout
    for plane in range(planes):
        some = slice(plane * parts, (plane + 1) * parts)
        pieces = [
            encoded[offset : offset + count]
            for offset, count in zip(offsets[some], counts[some], strict=True)
        ]
        if any(map(len, pieces)) and [*map(len, pieces)] == [*counts[some]]:
            image = decode(_gray_file(tags.order, described, tiled, pieces))
        else:
            image = None
        if image is None or image.shape != values.shape[1:] or image.dtype != values.dtype:
            raise HeaderError("the TIFF is truncated or corrupt")
        values[plane] = image
    values = values.reshape(planes, height, width, across)
    if predictor == 2:  # of differences from the pixel to the left, in each tile
        for left in range(0, width, columns):
            tile = values[:, :, left : left + columns]
            np.cumsum(tile, axis=2, dtype=values.dtype, out=tile)
    return np.moveaxis(values[..., 0], 0, 2) if planar else values[0]


def _gray_file(
    order: str, tags: dict[int, Sequence[int]], tiled: bool, pieces: Sequence[bytes]
) -> bytes:
    """Return a TIFF file with one page, of these tags and these compressed tiles or strips."""
    sizes = [len(piece) for piece in pieces]
    count = len(tags) + 2
    lists_at = 8 + 2 + 12 * count + 4
    data_at = lists_at + (8 * len(pieces) if len(pieces) > 1 else 0)
    offsets = [data_at + offset for offset in np.cumsum([0, *sizes[:-1]]).tolist()]
    tags = tags | {324: offsets, 325: sizes} if tiled else tags | {273: offsets, 279: sizes}
    entries, lists = [], b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, lists = struct.pack(f"{order}I", lists_at + len(lists)), lists + packed
        entries.append(struct.pack(f"{order}HHI", tag, 4, len(values)) + packed)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, count)
    return b"".join([head, *entries, bytes(4), lists, *pieces])
