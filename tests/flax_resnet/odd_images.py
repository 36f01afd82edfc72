"""Files of images that Pillow does not write."""

import struct
import zlib

import numpy as np

_LAYOUTS = {1: "B", 3: "H", 4: "I"}


def tiff(
    values,
    photometric,
    order="<",
    extra=(),
    sample_format=1,
    bits=None,
    tags=(),
    next_page=0,
    strips=1,
):
    """Return an uncompressed TIFF of values ``(H, W, C)``, packed to ``bits`` if given."""
    height, width, channels = values.shape
    depth = bits or values.dtype.itemsize * 8
    if bits:
        rows = ["".join(format(int(v), f"0{bits}b") for v in row.reshape(-1)) for row in values]
        padded = [row + "0" * (-len(row) % 8) for row in rows]
        data = b"".join(int(row, 2).to_bytes(len(row) // 8) for row in padded)
    else:
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [depth] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [0] * strips),  # replaced when the length is known
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(data) // strips] * strips),
        **({338: (3, [*extra])} if extra else {}),
        339: (3, [sample_format] * channels),
        **dict(tags),
    }
    start = 8 + 2 + 12 * len(entries) + 4
    blobs, directory = b"", b""
    for tag, (kind, numbers) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}{_LAYOUTS[kind]}", *numbers)
        if tag == 273:
            packed = b"".join(b"AT%2d" % strip for strip in range(strips))
        if len(packed) > 4:
            blobs, packed = blobs + packed, struct.pack(f"{order}I", start + len(blobs))
        head = struct.pack(f"{order}HHI", tag, kind, len(numbers))
        directory += head + packed.ljust(4, b"\0")
    for strip in range(strips):
        offset = start + len(blobs) + strip * (len(data) // strips)
        position = struct.pack(f"{order}I", offset)
        directory = directory.replace(b"AT%2d" % strip, position)
        blobs = blobs.replace(b"AT%2d" % strip, position)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}IH", 8, len(entries))
    return head + directory + struct.pack(f"{order}I", next_page) + blobs + data


def bmp(rows, width, height, depth, compression=0, palette=b"", masks=b"", header=40):
    """Return a bitmap of encoded ``rows``."""
    info = struct.pack(
        "<IiiHHIIiiII",
        *(header, width, height, 1, depth, compression, len(rows), 0, 0, len(palette) // 4, 0),
    )
    info += masks.ljust(header - 40, b"\0") if header > 40 else masks
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + palette + rows


def png_chunk(kind, data):
    """Return one chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def with_png_chunk(encoded, kind, data, before=b"IDAT"):
    """Insert a chunk into a PNG."""
    position = encoded.index(before) - 4
    return encoded[:position] + png_chunk(kind, data) + encoded[position:]


def with_jpeg_segment(encoded, marker, data):
    """Insert a segment at the start of a JPEG."""
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data
    return encoded[:2] + segment + encoded[2:]


def with_webp_chunk(encoded, width, height, kind, data):
    """Return an extended WebP of a simple one, with another chunk at the end."""
    flag = {b"EXIF": 8, b"ICCP": 32}[kind]
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<IB3x", 10, flag) + sizes
    chunk = kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    parts = (extended, encoded[12:], chunk) if kind == b"EXIF" else (extended, chunk, encoded[12:])
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif(orientation, order="<", prefix=b""):
    """Return EXIF data with an orientation."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return prefix + magic + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


def gif_with_comments(encoded, count):
    """Insert comments before the first image of a GIF."""
    start = 13 + (3 << (encoded[10] & 7) + 1 if encoded[10] & 0x80 else 0)
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * count + b"\0"
    return encoded[:start] + comment + encoded[start:]


def ramp(height=4, width=64, largest=65535):
    """Return uint16 values from 0 to ``largest``."""
    return np.linspace(0, largest, height * width).reshape(height, width, 1).astype(np.uint16)
