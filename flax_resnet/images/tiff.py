"""The first page of a TIFF file: which values it holds, and what they mean."""

import struct
from typing import NamedTuple

import numpy as np

from flax_resnet.images.headers import HeaderError, ImageHeader

MIN_IS_WHITE, PALETTE = 0, 3
_COLOR_MAP = 320
_PHOTOMETRIC = {0, 1, 2, 3, 5, 6, 8}  # gray (two kinds), RGB, palette, CMYK, YCbCr, Lab
_SAMPLE_FORMATS = {2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
_LAYOUTS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # unsigned integers
_MAX_SAMPLES = 8
_MAX_VALUES = 3 * 2**16  # of a tag that is read, such as the colors of a palette
_REDUCED, _MASK = 1, 4  # flags of NewSubfileType


class TiffPage(NamedTuple):
    """The first page of a TIFF file.

    Attributes:
      header: as for the other formats.
      photometric: interpretation of the values.
      samples: number of channels, with extra ones.
      planar: whether the channels are stored one after the other.
      pages: whether other images follow.
      single: the file without these.
      planes: of uncompressed channels that are stored one after the other, the values
        ``(3 or 4, H, W)`` as uint16, if Pillow would misread or refuse them.
      orientation: to be applied to ``planes``.
    """

    header: ImageHeader
    photometric: int
    samples: int
    planar: bool
    pages: bool
    single: bytes
    planes: np.ndarray | None = None
    orientation: int = 1


def inspect_tiff(encoded: bytes) -> TiffPage:
    """Read the tags of the first page.

    Raises:
      HeaderError: they are corrupt, or values have no defined range.
    """
    try:
        return _inspect(encoded)
    except struct.error:
        raise HeaderError("the TIFF is truncated or corrupt") from None


class Directory:
    """The tags of a page.

    Attributes:
      order: byte order of the file, as for ``struct``.
      big: whether it is a BigTIFF file.
      next_at: where the offset of the next page is stored.
    """

    def __init__(self, encoded: bytes, offset: int, order: str, big: bool):
        self._encoded, self.order, self.big = encoded, order, big
        count = struct.unpack_from(order + ("Q" if big else "H"), encoded, offset)[0]
        size, start = (20, offset + 8) if big else (12, offset + 2)
        self.next_at = start + size * count
        if self.next_at > len(encoded):
            raise HeaderError("the TIFF is truncated or corrupt")
        self._entries = {}
        for entry in range(start, self.next_at, size):
            self._entries.setdefault(struct.unpack_from(order + "H", encoded, entry)[0], entry)

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def read(self, tag: int, default: int = 0) -> int:
        """Return the first value."""
        return (self.read_all(tag) or (default,))[0]

    def read_all(self, tag: int) -> tuple[int, ...]:
        """Return the values of a tag of unsigned integers, or ``()``."""
        kind, count, start = self.locate(tag)
        layout = _LAYOUTS.get(kind)
        if layout is None:
            return ()
        if count > _MAX_VALUES:
            raise HeaderError(f"TIFF tag {tag} claims {count:,} values")
        return struct.unpack_from(f"{self.order}{count}{layout}", self._encoded, start)

    def read_bytes(self, tag: int) -> bytes:
        """Return the bytes of a tag of 8-bit values."""
        kind, count, start = self.locate(tag)
        return self._encoded[start : start + count] if kind in (1, 7) else b""

    def locate(self, tag: int) -> tuple[int, int, int]:
        """Return type, count and position of the values."""
        if tag not in self._entries:
            return 0, 0, 0
        entry = self._entries[tag]
        layout, inline = ("HQ", 8) if self.big else ("HI", 4)
        kind, count = struct.unpack_from(self.order + layout, self._encoded, entry + 2)
        start = entry + 4 + inline
        size = struct.calcsize("=" + _LAYOUTS.get(kind, "B"))
        if count * size > inline:
            start = self.offset_at(start)
        return kind, count, start

    def offset_at(self, position: int) -> int:
        """Return the offset that is stored at ``position``."""
        layout = self.order + ("Q" if self.big else "I")
        return struct.unpack_from(layout, self._encoded, position)[0]


def first_page(encoded: bytes) -> Directory:
    """Return the tags of the first page, which holds the image; raise HeaderError if not."""
    order = "<" if encoded[:1] == b"I" else ">"
    big = 43 in encoded[2:4]
    first = struct.unpack_from(order + "Q" if big else order + "I", encoded, 8 if big else 4)[0]
    tags = Directory(encoded, first, order, big)
    if 50706 in tags or encoded[8:10] == b"CR":
        raise HeaderError("a raw camera file is not supported; convert it to JPEG")
    if tags.read(254) & (_REDUCED | _MASK):
        raise HeaderError("the first page of the TIFF is a preview or a mask, not the image")
    return tags


def _inspect(encoded: bytes) -> TiffPage:
    tags = first_page(encoded)
    order, big = tags.order, tags.big
    offset_size = 8 if big else 4
    photometric, samples = tags.read(262, MIN_IS_WHITE), tags.read(277, 1)
    depth = read_depth(tags, photometric, samples)
    width, height = tags.read(256), tags.read(257)
    tile = tags.read(322, 1) * tags.read(323, 1)
    if tile > max(2**24, 4 * width * height):
        raise HeaderError(f"a tile of the TIFF claims {tile:,} pixels")
    extra = tags.read_all(338)
    maximum = tags.read(281)
    significant = None
    if 281 in tags and 8 < maximum.bit_length() <= depth:
        significant = maximum.bit_length()
    following = _offset_or_zero(tags, encoded)
    header = ImageHeader(
        width,
        height,
        plain=False,
        profile=tags.read_bytes(34675),
        depth=depth,
        significant_bits=depth if 8 < depth < 16 else significant,
        associated_alpha=1 in extra,
    )
    single = encoded[: tags.next_at] + bytes(offset_size) + encoded[tags.next_at + offset_size :]
    if photometric == PALETTE:
        single = _widen_palette(tags, single, order)
    planar = samples > 1 and tags.read(284, 1) == 2
    pages = bool(following) and _is_image(encoded, following, order, big)
    page = TiffPage(header, photometric, samples, planar, pages, single)
    # Pillow reads deep planes as 8-bit ones and knows few kinds of channels; OpenCV reads pixels.
    known = depth < 8 or photometric > 2 or samples == 3 or (samples == 4 and 1 not in extra)
    if not planar or tags.read(259, 1) != 1 or (depth <= 8 and known):
        return page
    return _read_planes(tags, encoded, order, page)


def _read_planes(tags: Directory, encoded: bytes, order: str, page: TiffPage) -> TiffPage:
    """Add the values of uncompressed planes, of 8-bit ones scaled to 16 bits."""
    depth, width, height = page.header.depth, page.header.width, page.header.height
    photometric, samples = page.photometric, page.samples
    is_gray = photometric == 1
    kinds = {2} if is_gray else {3, 4}
    if depth not in (8, 16) or photometric not in (1, 2) or samples not in kinds or 324 in tags:
        raise HeaderError(
            f"{samples} uncompressed planes of a {depth}-bit TIFF are not supported: only strips of"
            " gray or RGB with at most one alpha; save it by pixel"
        )
    offsets, counts = tags.read_all(273), tags.read_all(279)
    if sum(counts) != depth // 8 * samples * width * height or sum(counts) > len(encoded):
        raise HeaderError("the TIFF is truncated or corrupt")
    strips = zip(offsets, counts, strict=False)
    data = b"".join(encoded[offset : offset + count] for offset, count in strips)
    if len(data) != sum(counts):
        raise HeaderError("the TIFF is truncated or corrupt")
    planes = np.frombuffer(data, f"{order}u{depth // 8}").reshape(samples, height, width)
    planes = planes.astype(np.uint16)
    header = page.header
    if depth == 8:
        planes, header = 257 * planes, header._replace(significant_bits=16)
    if is_gray:
        planes = planes[[0, 0, 0, 1]]
    orientation = tags.read(274, 1)
    return page._replace(
        header=header, planes=planes, orientation=orientation if orientation <= 8 else 1
    )


def read_depth(
    tags: Directory, photometric: int, samples: int, max_samples: int = _MAX_SAMPLES
) -> int:
    """Return the bits per value, of a kind whose range is defined."""
    if photometric not in _PHOTOMETRIC:
        raise HeaderError(f"TIFF with photometric interpretation {photometric} is not supported")
    if samples > max_samples:
        raise HeaderError(f"TIFF with {samples:,} channels is not supported")
    bits, formats = {*tags.read_all(258)} or {1}, {*tags.read_all(339)} or {1}
    depth = max(bits)
    kinds = [_SAMPLE_FORMATS[number] for number in sorted(formats & _SAMPLE_FORMATS.keys())]
    if kinds or depth > 16:
        kind = kinds[0] if kinds else "integers"
        raise HeaderError(
            f"TIFF of {depth}-bit {kind} has no defined range; convert it to 8 or 16 bits"
        )
    if len(bits) > 1:
        raise HeaderError("TIFF with channels of different depths is not supported")
    return depth


def _widen_palette(tags: Directory, encoded: bytes, order: str) -> bytes:
    """Return the file with a palette of 16-bit colors, where a program wrote 8-bit ones."""
    colors = tags.read_all(_COLOR_MAP)
    kind, count, start = tags.locate(_COLOR_MAP)
    if kind != 3 or max(colors, default=256) > 255:
        return encoded
    wide = struct.pack(f"{order}{count}H", *(257 * color for color in colors))
    return encoded[:start] + wide + encoded[start + len(wide) :]


def _offset_or_zero(tags: Directory, encoded: bytes) -> int:
    try:
        return tags.offset_at(tags.next_at)
    except struct.error:
        return 0


def _is_image(encoded: bytes, offset: int, order: str, big: bool) -> bool:
    """Return whether there is another page that is not a preview or a mask."""
    try:
        return not Directory(encoded, offset, order, big).read(254) & (_REDUCED | _MASK)
    except (struct.error, HeaderError):
        return False
