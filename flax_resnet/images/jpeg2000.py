"""The header of JPEG 2000 files: the boxes before the codestream, and how it is divided."""

import re
import struct

from flax_resnet.images.headers import HeaderError, ImageHeader

# OpenJPEG allocates memory for every code block and packet that is claimed, also for empty ones.
_FREE_BLOCKS, _FREE_PACKETS = 400_000, 2_000_000
_CODING, _CODING_OF_COMPONENT, _TILE_PART, _DATA = 0xFF52, 0xFF53, 0xFF90, 0xFF93


def inspect_jpeg2000(encoded: bytes) -> ImageHeader:
    """Read the size marker of the codestream, and the channel definitions before it.

    Raises:
      HeaderError: the header is corrupt, or claims more than the file can hold.
    """
    start = encoded.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(encoded) < start + 43:
        raise HeaderError("the JPEG 2000 file has no image")
    fields = struct.unpack_from(">8IH", encoded, start + 8)
    width, height, left, top, tile_width, tile_height, tile_left, tile_top, components = fields
    if not 1 <= components <= 4:
        raise HeaderError(f"a JPEG 2000 image of {components} components is not supported")
    if not (tile_width and tile_height):
        raise HeaderError("the JPEG 2000 image has empty tiles")
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    if tiles > max(1000, len(encoded) // 16):
        raise HeaderError(f"the JPEG 2000 image claims {tiles:,} tiles")
    boxes = encoded[:start]
    if b"pclr" in boxes:
        raise HeaderError("a JPEG 2000 image with a palette is not supported")
    width, height = width - left, height - top
    _check_coding(encoded, start + 2, width, height, components)
    channels = re.search(rb"cdef..((?:..\0[\0-\x02]..)+)", boxes, re.S)
    color = re.search(rb"(....)colr\x02..", boxes, re.S)
    profile = boxes[color.end() : color.start() + int.from_bytes(color[1])] if color else b""
    return ImageHeader(
        width,
        height,
        plain=False,
        profile=profile,
        associated_alpha=channels is not None and 2 in channels[1][3::6],
    )


def _check_coding(encoded: bytes, offset: int, width: int, height: int, components: int) -> None:
    """Check how the image and its tiles are divided into packets and code blocks."""
    part_end = len(encoded)
    while offset + 16 <= len(encoded):
        marker, length = struct.unpack_from(">HH", encoded, offset)
        if marker == _TILE_PART:
            part_length = struct.unpack_from(">I", encoded, offset + 6)[0]
            part_end = offset + part_length if part_length else len(encoded)
        elif marker in (_CODING, _CODING_OF_COMPONENT):
            own = marker == _CODING_OF_COMPONENT
            layers = 1 if own else struct.unpack_from(">H", encoded, offset + 6)[0]
            style = encoded[offset + 5 if own else offset + 4]
            division = encoded[offset + 6 if own else offset + 9 : offset + 2 + length]
            packets, blocks = _count_parts(width, height, style, division)
            packets, blocks = packets * layers * components, blocks * components
            if packets > max(_FREE_PACKETS, 8 * len(encoded)):
                raise HeaderError(f"the JPEG 2000 image claims {packets:,} packets")
            if blocks > max(_FREE_BLOCKS, 8 * len(encoded)):
                raise HeaderError(f"the JPEG 2000 image claims {blocks:,} code blocks")
        if marker < 0xFF00:
            return
        following = part_end if marker == _DATA else offset + 2 + length
        if following <= offset:  # would never end
            raise HeaderError("the JPEG 2000 image has a corrupt tile")
        offset = following


def _count_parts(width: int, height: int, style: int, division: bytes) -> tuple[int, int]:
    """Return the numbers of precincts and of code blocks of a component."""
    if len(division) < 5:
        raise HeaderError("the JPEG 2000 image is truncated")
    levels, precincts, blocks = min(division[0], 32), 0, 0
    for level in range(levels + 1):
        shift = levels - level
        columns, rows = -(-width // (1 << shift)), -(-height // (1 << shift))
        size = division[5 + level] if style & 1 and len(division) > 5 + level else 0xFF
        across, down = size & 15, size >> 4
        precincts += -(-columns // (1 << across)) * -(-rows // (1 << down))
        inner = level > 0  # precincts of these levels cover three bands of half the size
        block_width = 1 << min((division[1] & 15) + 2, max(across - inner, 0))
        block_height = 1 << min((division[2] & 15) + 2, max(down - inner, 0))
        blocks += -(-columns // block_width) * -(-rows // block_height)
    return precincts, blocks
