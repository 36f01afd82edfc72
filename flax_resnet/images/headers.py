"""What the header of an image file states, read before any decoder sees the file."""

import re
import struct
import zlib
from typing import NamedTuple

MAX_PROFILE_BYTES = 4 * 2**20  # larger than any color profile in use
_MAX_JPEG_SEGMENTS = 1000
_MAX_JPEG_SCANS = 100
_MAX_PARTS = 100_000  # chunks of WebP; blocks of 255 bytes of GIF, before its image
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_NO_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8), 0xFF}  # markers, and a byte before a marker
_JPEG_FRAME = struct.Struct(">BHHB")
# The whole header of many JPEG files: JFIF, tables of the usual lengths, a frame of 8 bits and one
# or three components, the usual codes, and a scan of all components.
_PLAIN_JPEG = re.compile(
    rb"\xff\xd8(?:\xff\xe0\0\x10.{14})?(?:\xff\xdb\0(?:\x43.{65}|\x84.{130})){1,4}"
    rb"\xff\xc0\0(?:(\x0b\x08(?=....\x01))|\x11\x08(?=....\x03))(..)(..)(.)(?(1).{3}|.{9})"
    rb"(?:\xff\xc4(?:\0\x1f.{29}|\0\xb5.{179}|\x01\xa2.{416})){1,4}\xff\xda..\4",
    re.S,
)
_EXIF = b"Exif\0\0"
_PNG_METADATA = {b"eXIf", b"iCCP", b"sBIT"}
_RAW_EXIF = b"Raw profile type exif\0"
_EXIF_STARTS = (b"Exif\0", b"II*\0", b"MM\0*")


class HeaderError(ValueError):
    """The header is not valid, or describes an image that is not decoded."""


class ImageHeader(NamedTuple):
    """What a file states about its image.

    Attributes:
      width: in pixels, as stored.
      height: in pixels, as stored.
      plain: whether the image is 8-bit and of a kind that OpenCV decodes correctly.
      orientation: EXIF orientation, 1 to 8.
      profile: the ICC profile, or ``b""``.
      depth: bits per value in the file.
      significant_bits: how many of these are used, if the file states it.
      associated_alpha: whether colors are multiplied with the alpha.
      unused: parts of a PNG that no decoder needs. OpenCV would return a later frame of an
        animation, and prints libpng's remarks, which contain names from the file.
    """

    width: int
    height: int
    plain: bool = True
    orientation: int = 1
    profile: bytes = b""
    depth: int = 8
    significant_bits: int | None = None
    associated_alpha: bool = False
    unused: tuple[slice, ...] = ()


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, with or without their prefix; 1 if there is none."""
    start = len(_EXIF) if exif.startswith(_EXIF) else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None or len(exif) < start + 8:
        return 1
    offset = start + struct.unpack_from(order + "I", exif, start + 4)[0]
    if len(exif) < offset + 2:
        return 1
    count = struct.unpack_from(order + "H", exif, offset)[0]
    for entry in range(offset + 2, min(offset + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == 0x0112:
            layout = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
            value = struct.unpack_from(order + layout, exif, entry + 8)[0]
            return value if 1 <= value <= 8 else 1
    return 1


def plain_jpeg_shape(encoded: bytes) -> tuple[int, int] | None:
    """Return height and width if the file is a JPEG whose header holds nothing else.

    For a tiny image, :func:`inspect_jpeg` takes a fifth of the time of decoding.
    """
    match = _PLAIN_JPEG.match(encoded)
    return (int.from_bytes(match[2]), int.from_bytes(match[3])) if match else None


def inspect_jpeg(encoded: bytes) -> ImageHeader:
    """Read the segments up to the first scan."""
    offset, frame, exif, parts = 2, 0, b"", {}
    try:
        for _ in range(_MAX_JPEG_SEGMENTS):
            if encoded[offset] != 0xFF:
                offset = encoded.find(b"\xff", offset)
                if offset < 0:
                    raise IndexError
            marker = encoded[offset + 1]
            if marker in _NO_LENGTH:
                offset += 1 if marker == 0xFF else 2
                continue
            if marker in (0xD9, 0xDA):
                break
            end = offset + 2 + (encoded[offset + 2] << 8 | encoded[offset + 3])
            if marker == 0xE1:
                if not exif and encoded.startswith(_EXIF_STARTS, offset + 4):
                    exif = encoded[offset + 4 : end]
            elif marker == 0xE2:
                if encoded.startswith(b"ICC_PROFILE\0", offset + 4):
                    parts[encoded[offset + 16]] = encoded[offset + 18 : end]
            elif marker in _START_OF_FRAME:
                frame = offset
            offset = end
        else:
            raise HeaderError(f"the JPEG has more than {_MAX_JPEG_SEGMENTS:,} segments of metadata")
        if not frame:
            raise HeaderError("the JPEG has no image")
        depth, height, width, components = _JPEG_FRAME.unpack_from(encoded, frame + 4)
        scanned = encoded[offset + 4]  # components of the first scan
    except (IndexError, struct.error) as error:
        raise HeaderError("the JPEG is truncated") from error
    if depth != 8:
        raise HeaderError(f"{depth}-bit JPEG is not supported; convert it to 8 bits")
    # Each scan passes over the whole image, even if it has a few bytes only.
    if encoded[frame + 1] in _PROGRESSIVE or scanned < components:
        scans = encoded.count(b"\xff\xda")
        if scans > _MAX_JPEG_SCANS:
            raise HeaderError(f"the JPEG has more than {_MAX_JPEG_SCANS} scans")
    if not exif and not parts:
        return ImageHeader(width, height, components in (1, 3))
    profile = b"".join(parts[number] for number in sorted(parts))
    return ImageHeader(width, height, components in (1, 3), exif_orientation(exif), profile)


def inspect_png(encoded: bytes) -> ImageHeader:
    """Read all chunks.

    For a corrupt length in the header or a chunk, OpenCV may allocate gigabytes before it detects
    the error.
    """
    if len(encoded) < 26:
        raise HeaderError("the PNG is truncated")
    width, height, depth, color = struct.unpack_from(">IIBB", encoded, 16)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 1)
    # Deflate compresses by a factor of at most 1,032.
    if width * height * channels * depth / 8 > 1032 * len(encoded):
        raise HeaderError(f"a PNG of this length cannot hold the claimed {width}×{height} pixels")
    offset, kind, chunks, unused = 8, b"", {}, []
    while kind != b"IEND" and offset + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, offset)
        if kind in _PNG_METADATA:
            chunks.setdefault(kind, encoded[offset + 8 : offset + 8 + length])
        elif kind in (b"zTXt", b"tEXt") and encoded.startswith(_RAW_EXIF, offset + 8):
            if b"eXIf" not in chunks:  # each could expand to megabytes
                text = encoded[offset + 8 : offset + 8 + length]
                text = _inflate(text) if kind == b"zTXt" else text.partition(b"\0")[2]
                chunks[b"eXIf"] = _raw_exif(text)
        start, offset = offset, offset + 12 + length  # length, type, data and checksum
        if kind[0] & 0x20 and kind != b"tRNS":  # lower case: ancillary
            unused.append(slice(start, offset))
    if kind != b"IEND" or offset > len(encoded):
        raise HeaderError("the PNG is truncated or corrupt")
    if not unused and depth <= 8:
        return ImageHeader(width, height)
    bits = max(chunks[b"sBIT"][:3], default=None) if b"sBIT" in chunks else None
    orientation = exif_orientation(chunks[b"eXIf"]) if b"eXIf" in chunks else 1
    profile = _inflate(chunks[b"iCCP"]) if b"iCCP" in chunks else b""
    return ImageHeader(
        width, height, depth <= 8, orientation, profile, depth, bits, unused=tuple(unused)
    )


def _inflate(chunk: bytes) -> bytes:
    """Return the compressed data after a keyword; of a corrupt chunk ``b"corrupt"``."""
    compressed = chunk.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(compressed, MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return b"corrupt"


def _raw_exif(text: bytes) -> bytes:
    """Return EXIF data that ImageMagick wrote before PNG had a chunk for them: hex digits."""
    digits = b"".join(text.split()[2:])  # after "exif" and the length
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _count_part(count: int) -> int:
    """Return the number of parts with another one; raise HeaderError for more than files have."""
    if count >= _MAX_PARTS:
        raise HeaderError(f"the file has more than {_MAX_PARTS:,} chunks or blocks")
    return count + 1


def inspect_webp(encoded: bytes) -> ImageHeader:
    """Read the chunks of the RIFF container."""
    width = height = 0
    animated, orientation, profile = False, 1, b""
    offset, count = 12, 0
    while offset + 8 <= len(encoded):
        count = _count_part(count)
        kind, length = struct.unpack_from("<4sI", encoded, offset)
        data = encoded[offset + 8 : offset + 18]
        if kind == b"VP8X" and len(data) == 10:
            animated = bool(data[0] & 2)
            width = max(width, 1 + int.from_bytes(data[4:7], "little"))
            height = max(height, 1 + int.from_bytes(data[7:10], "little"))
        elif kind == b"VP8 " and len(data) == 10:
            width = max(width, int.from_bytes(data[6:8], "little") & 0x3FFF)
            height = max(height, int.from_bytes(data[8:10], "little") & 0x3FFF)
        elif kind == b"VP8L" and len(data) >= 5:
            bits = int.from_bytes(data[1:5], "little")
            width, height = max(width, 1 + (bits & 0x3FFF)), max(height, 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"EXIF":
            orientation = exif_orientation(encoded[offset + 8 : offset + 8 + length])
        elif kind == b"ICCP":
            profile = encoded[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2
    return ImageHeader(width, height, not animated, orientation, profile)


def inspect_bmp(encoded: bytes) -> ImageHeader:
    """Read the information header of any version."""
    if len(encoded) < 54:
        encoded += bytes(54)
    if encoded[14] == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", encoded, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", encoded, 18)
    if compression in (4, 5):
        raise HeaderError("a bitmap that embeds a JPEG or PNG is not supported")
    plain = encoded[14] != 12 and depth == 24 and compression == 0
    return ImageHeader(width, abs(height), plain)


def inspect_gif(encoded: bytes) -> tuple[ImageHeader, bytes]:
    """Return the header, and the file without comments and other extensions.

    Pillow's time for these grows with the square of their length.
    """
    if len(encoded) < 13:
        raise HeaderError("the GIF is truncated")
    offset = palette_end = 13 + (3 << (encoded[10] & 7) + 1 if encoded[10] & 0x80 else 0)
    control, count = b"", 0
    while encoded[offset : offset + 1] == b"!":
        start = offset
        offset += 2
        while offset < len(encoded) and encoded[offset]:
            offset += 1 + encoded[offset]
            count = _count_part(count)
        offset += 1
        count = _count_part(count)
        if encoded[start + 1] == 0xF9:  # of the image that follows
            control = encoded[start:offset]
    if encoded[offset : offset + 1] != b"," or len(encoded) < offset + 10:
        raise HeaderError("the GIF has no image")
    width, height = struct.unpack_from("<HH", encoded, 6)
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", encoded, offset + 1)
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    return ImageHeader(width, height, plain=False), encoded[:palette_end] + control + encoded[
        offset:
    ]


def inspect_avif(encoded: bytes) -> ImageHeader:
    """Read the sizes of all images in the container."""
    sizes = re.findall(rb"ispe\0\0\0\0(....)(....)", encoded, re.S)
    if not sizes:
        raise HeaderError("the AVIF file has no image")
    width, height = (max(int.from_bytes(size[axis]) for size in sizes) for axis in (0, 1))
    return ImageHeader(width, height, plain=False)
