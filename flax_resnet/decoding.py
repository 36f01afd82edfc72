"""Decoding of images to uint8 pixels on the host. Needs OpenCV, simplejpeg and Pillow.

The content decides about the format and the decoder, before any library sees the bytes. OpenCV
decodes plain 8-bit JPEG, PNG, WebP and BMP and the values of deep PNG and TIFF; Pillow the rest.
The same library decodes JPEG in simplejpeg and OpenCV, with the same pixels, but simplejpeg takes
less time (benchmarks/studies/input.md). OpenCV decides about files with errors.
"""

import io
import os
import threading
import warnings
from collections.abc import Sequence

# A header that claims more pixels than any photograph is malicious or corrupt. OpenCV allocates
# whatever the header claims, so it is limited to 50 megapixels; larger images than that are decoded
# by Pillow, JPEGs by simplejpeg, after a check of the header. OpenCV reads both variables when
# it is imported.
MAX_PIXELS = 178_956_970  # twice Pillow's MAX_IMAGE_PIXELS; above this, Pillow raises an error
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # ImageDecodeError reports the reason

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
from PIL import Image, UnidentifiedImageError  # noqa: E402

from flax_resnet.files import open_regular  # noqa: E402
from flax_resnet.images import (  # noqa: E402
    conversion,
    headers,
    jpeg2000,
    pnm,
    tiff,
    tiff_channels,
)
from flax_resnet.images.conversion import Warn, convert_pixels, reduce_depth, to_srgb  # noqa: E402
from flax_resnet.images.formats import describe_format, detect_format  # noqa: E402
from flax_resnet.images.headers import HeaderError, ImageHeader  # noqa: E402
from flax_resnet.images.masks import mask_values  # noqa: E402
from flax_resnet.images.pixels import RGB, PixelFormat  # noqa: E402
from flax_resnet.text import OneLineError, error_reason, one_line  # noqa: E402

# An image of one color needs a byte for several hundred pixels, in most formats.
_MAX_PIXELS_PER_BYTE, _FREE_PIXELS = 1000, 25_000_000
_INSPECT = {
    "JPEG": headers.inspect_jpeg,
    "PNG": headers.inspect_png,
    "WEBP": headers.inspect_webp,
    "BMP": headers.inspect_bmp,
    "AVIF": headers.inspect_avif,
    "JPEG2000": jpeg2000.inspect_jpeg2000,
}
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # of an orientation, after transposing from 5 on
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_BGR_DEEP = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH


class ImageDecodeError(OneLineError):
    """The bytes are not a readable image; the message gives the reason."""


class ImageWarning(UserWarning):
    """An image was decoded, but something in it had to be guessed or ignored."""


_warned: set[str] = set()
_lock = threading.Lock()


def warn_once(kind: str, text: str) -> None:
    """Issue an ImageWarning for the first image of each kind."""
    with _lock:
        is_first = kind not in _warned
        _warned.add(kind)
    if is_first:
        warnings.warn(text, ImageWarning, stacklevel=2)


def decode_rgb(encoded: bytes, warn: Warn = warn_once) -> np.ndarray:
    """Decode an image to uint8 RGB ``(H, W, 3)``.

    JPEG, PNG, WebP, BMP, TIFF, GIF, Netpbm, AVIF and JPEG 2000 are detected from the content. The
    EXIF orientation is applied, and colors are converted to sRGB if the file has another ICC
    profile. Gray images get three equal channels, palette images their colors; CMYK is converted.
    Transparency is ignored: the colors are those that are stored, without the alpha. 16-bit values
    are reduced to their upper 8 bits, with fewer significant bits to the upper 8 of these. The
    first image of an animation or of several pages is used.

    Args:
      encoded: the contents of a file.
      warn: called with a kind and a text if something had to be guessed or ignored; default: an
        ``ImageWarning`` for the first image of each kind.

    Raises:
      ImageDecodeError: if the bytes are not an image, are truncated, have values without a defined
        range (floats, 32-bit integers), or claim more than ``MAX_PIXELS`` or more pixels than
        their length can encode.
    """
    shape = headers.plain_jpeg_shape(encoded)
    if shape and 0 < shape[0] * shape[1] <= _FREE_PIXELS:
        pixels = _decode_jpeg(encoded)
        if pixels is not None and pixels.shape[:2] == shape:
            return pixels
    kind = detect_format(encoded)
    try:
        if kind in _INSPECT:
            header = _INSPECT[kind](encoded)
            _check_size(header, len(encoded))
            if header.unused:
                encoded = _without(encoded, header.unused)
            if header.plain:
                is_jpeg = kind == "JPEG"
                pixels = _decode_jpeg(encoded) if is_jpeg else _decode_with_opencv(encoded, _RGB)
                if pixels is not None and pixels.shape[:2] == (header.height, header.width):
                    if header.profile:
                        pixels = to_srgb(pixels, header.profile, warn)
                    return _orient(pixels, header.orientation)
            elif kind == "PNG":
                values = _decode_with_opencv(encoded, _BGR_DEEP)
                if values is not None:
                    bits = conversion.stored_bits(values, header.significant_bits, warn)
                    return _deep_to_rgb(values, header._replace(significant_bits=bits), warn)
            return _decode_with_pillow(encoded, kind, header, warn)
        if kind == "TIFF":
            return _decode_tiff(encoded, warn)
        if kind == "GIF":
            header, encoded = headers.inspect_gif(encoded)
            _check_size(header, len(encoded))
            return _decode_with_pillow(encoded, kind, header, warn)
        if kind == "PNM":
            header, match = pnm.inspect_pnm(encoded)
            _check_size(header, len(encoded))
            pixels = pnm.decode_pnm(encoded, match)
            return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        raise HeaderError(describe_format(encoded))
    except Exception as error:  # Pillow raises many types
        raise _decode_error(encoded, error) from error


def decode_image(encoded: bytes, pixels: PixelFormat = RGB, warn: Warn = warn_once) -> np.ndarray:
    """Decode an image to ``pixels.channels`` channels of ``pixels.bits`` bits, ``(H, W, C)``.

    RGB of 8 bits is that of :func:`decode_rgb`. One channel is gray: colors are converted by their
    luma (ITU-R BT.601). With 16 bits, the values are those that are stored, and of files of 8 bits
    257 times those. Images of one or three channels may have an alpha, which is ignored. Other
    numbers of channels are those of the file, as stored: TIFF of any number, PNG with an alpha of
    two or four.

    Args:
      encoded: the contents of a file.
      pixels: channels and bits of the result.
      warn: as for :func:`decode_rgb`.

    Raises:
      ImageDecodeError: as for :func:`decode_rgb`, or the file has other channels.
    """
    if pixels.channels in (1, 3) and pixels.bits == 8:
        values = decode_rgb(encoded, warn)
        return values if pixels.channels == 3 else convert_pixels(values, pixels, warn)
    try:
        return convert_pixels(_decode_values(encoded, pixels.channels, warn), pixels, warn)
    except ImageDecodeError:
        raise
    except Exception as error:
        raise _decode_error(encoded, error) from error


def read_image(path: str | os.PathLike[str], pixels: PixelFormat = RGB) -> np.ndarray:
    """Decode a file; see :func:`decode_image`.

    Raises:
      ImageDecodeError: if it cannot be read or decoded; the message names the file.
    """

    def warn(kind: str, text: str) -> None:
        warn_once(kind, f"{one_line(os.fspath(path))}: {text}")

    try:
        with open_regular(path) as file:
            return decode_image(file.read(), pixels, warn)
    except (OSError, ImageDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ImageDecodeError(f"{os.fspath(path)}: {reason}") from error


def decode_mask(encoded: bytes) -> np.ndarray:
    """Decode a mask to its values, uint8 ``(H, W)``: the indices of a palette, or gray values.

    Values are those that are stored, whatever their colors or bits are: 3 of a PNG of 2 bits is 3.
    The EXIF orientation is applied as for images.

    Args:
      encoded: the contents of a PNG file.

    Raises:
      ImageDecodeError: it is not a PNG with a palette or gray values of at most 255.
    """
    try:
        kind = detect_format(encoded)
        if kind != "PNG":
            found = describe_format(encoded) if kind is None else kind
            raise HeaderError(f"a mask must be a PNG, which keeps every value, not {found}")
        header = headers.inspect_png(encoded)
        _check_size(header, len(encoded))
        return conversion.orient(mask_values(_without(encoded, header.unused)), header.orientation)
    except Exception as error:  # Pillow raises many types
        raise _decode_error(encoded, error, "mask") from error


def mask_size(encoded: bytes) -> tuple[int, int]:
    """Return height and width of a mask, a PNG file, from its header.

    Raises:
      ImageDecodeError: it is no PNG.
    """
    try:
        if detect_format(encoded) != "PNG":
            raise HeaderError("not a PNG")
        header = headers.inspect_png(encoded)
    except HeaderError as error:
        raise _decode_error(encoded, error, "mask") from error
    size = header.height, header.width
    return size[::-1] if header.orientation >= 5 else size


def array_to_pixels(array: np.ndarray, pixels: PixelFormat = RGB) -> np.ndarray:
    """Return an image's values with ``pixels.channels`` channels of ``pixels.bits`` bits.

    Args:
      array: uint8, or uint16 if ``pixels.bits`` is 16; ``(H, W, C)``, or gray ``(H, W)``. One and
        three channels are converted to each other as by :func:`decode_image`.
      pixels: the form of the result ``(H, W, C)``.

    Raises:
      ImageDecodeError: it has another type or shape.
    """
    types = {8: ("uint8",), 16: ("uint8", "uint16")}[pixels.bits]
    if array.dtype.name not in types or array.ndim not in (2, 3) or not array.size:
        raise ImageDecodeError(
            f"an array of {array.dtype} {array.shape} is not an image of {pixels}: it must be"
            f" {' or '.join(types)} (H, W, {pixels.channels})"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return convert_pixels(array.reshape(*array.shape[:2], -1), pixels, warn_once)
    except HeaderError as error:
        raise ImageDecodeError(f"an array {array.shape} is not an image: {error}") from error


def pillow_to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to RGB as :func:`decode_rgb` does.

    Raises:
      ImageDecodeError: its values have no defined range.
    """
    try:
        return conversion.pillow_to_rgb(image)
    except ValueError as error:
        raise ImageDecodeError(str(error)) from error


def _decode_error(encoded: bytes, error: Exception, what: str = "image") -> ImageDecodeError:
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "unknown format" if unknown else error_reason(error)
    return ImageDecodeError(f"{len(encoded):,} bytes are not a readable {what}: {reason}")


def _check_size(header: ImageHeader, length: int) -> None:
    """Raise HeaderError if an image claims more pixels than its length can encode."""
    _check_pixels(header.width, header.height, length)


def _check_pixels(width: int, height: int, length: int) -> None:
    pixels = width * height
    if pixels > min(MAX_PIXELS, max(_FREE_PIXELS, _MAX_PIXELS_PER_BYTE * length)) or pixels <= 0:
        raise HeaderError(f"the header claims {width}×{height} pixels")


def _decode_values(encoded: bytes, channels: int, warn: Warn) -> np.ndarray:
    """Return the stored values ``(H, W, C)`` of 8 or 16 bits; of files of colors, uint8 RGB."""
    kind, stored = detect_format(encoded), None
    if kind == "PNG":
        stored = _png_values(encoded)
    elif kind == "TIFF":
        stored = tiff_channels.read_channels(
            encoded,
            lambda width, height: _check_pixels(width, height, len(encoded)),
            lambda file: _decode_with_opencv(file, cv2.IMREAD_UNCHANGED),
        )
    elif kind in ("PNM", "AVIF", "JPEG2000"):
        raise HeaderError(f"{kind} is read with 8 bits and 1 or 3 channels only; save it as PNG")
    if stored is None:
        return decode_rgb(encoded, warn)
    values = stored.values
    if channels in (1, 3):
        if stored.associated_alpha:
            values = conversion.unmultiply(values[..., :-1], values[..., -1:])
        values = values[..., : stored.colors]
        if stored.profile and conversion.profile_transform(stored.profile) is not conversion.SAME:
            warn("color profile of 16 bits", "the color profile of 16-bit values is not applied")
    return conversion.orient(values, stored.orientation)


def _png_values(encoded: bytes) -> tiff_channels.StoredValues:
    header = headers.inspect_png(encoded)
    _check_size(header, len(encoded))
    encoded = _without(encoded, header.unused)
    values = _decode_with_opencv(encoded, cv2.IMREAD_UNCHANGED)
    if values is None or values.shape[:2] != (header.height, header.width):
        raise HeaderError("the PNG is truncated or corrupt")
    values = values.reshape(*values.shape[:2], -1)
    # OpenCV returns BGR for palettes, and BGRA for gray with an alpha.
    order, colors = {0: ([0], 1), 4: ([0, 3], 1), 6: ([2, 1, 0, 3], 3)}.get(
        encoded[25], ([2, 1, 0], 3)
    )
    return tiff_channels.StoredValues(
        values[..., order], colors, header.orientation, header.profile
    )


def _without(encoded: bytes, parts: Sequence[slice]) -> bytes:
    """Return the bytes outside of ``parts``, which are in order."""
    starts = (0, *(part.stop for part in parts))
    stops = (*(part.start for part in parts), len(encoded))
    return b"".join(encoded[start:stop] for start, stop in zip(starts, stops, strict=True))


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image of 8 bits upright, much faster than ``conversion.orient``."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = _FLIPS.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip, dst=pixels)


def _decode_jpeg(encoded: bytes) -> np.ndarray | None:
    """Decode a plain JPEG to RGB."""
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB")
    except ValueError:  # also where libjpeg only warns
        return _decode_with_opencv(encoded, _RGB)


def _decode_with_opencv(encoded: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # too many pixels
        return None


def _decode_with_pillow(encoded: bytes, kind: str, header: ImageHeader, warn: Warn) -> np.ndarray:
    with Image.open(io.BytesIO(encoded), formats=(kind,)) as image:
        if image.width * image.height > header.width * header.height:
            raise HeaderError(f"the file claims {image.width}×{image.height} pixels")
        orientation = header.orientation
        if kind == "AVIF":  # the container's rotation, which replaces that of EXIF
            orientation = image.getexif().get(0x0112, 1)
        profile = header.profile or image.info.get("icc_profile") or b""
        image.load()
        if header.associated_alpha and image.mode == "RGBA" and kind == "JPEG2000":
            values = np.asarray(image)
            image = Image.fromarray(conversion.unmultiply(values[..., :3], values[..., 3:]))
        pixels = conversion.mode_to_rgb(image, profile, warn, header.significant_bits)
        return _orient(pixels, orientation)


def _decode_tiff(encoded: bytes, warn: Warn) -> np.ndarray:
    """Decode the first page. Both libraries apply the orientation themselves."""
    page = tiff.inspect_tiff(encoded)
    header = page.header
    _check_size(header, len(encoded))
    if page.pages:
        warn("several pages", "only the first page of a file of several pages is used")
    if page.planes is not None:
        values = np.moveaxis(page.planes[[2, 1, 0, 3][: len(page.planes)]], 0, 2)
        return _deep_to_rgb(values, header._replace(orientation=page.orientation), warn)
    if header.depth > 8 and page.photometric <= 2 and page.samples in (1, 3, 4) and not page.planar:
        values = _decode_with_opencv(page.single, cv2.IMREAD_UNCHANGED)
        if values is None:
            raise HeaderError(f"the {header.depth}-bit TIFF is truncated or of an unknown kind")
        if header.depth < 16:  # OpenCV scales them to 16 bits
            header = header._replace(significant_bits=16)
        return _deep_to_rgb(values, header, warn, inverted=page.photometric == tiff.MIN_IS_WHITE)
    pixels = _decode_with_pillow(page.single, "TIFF", header, warn)
    if header.depth > 8 and 0 < pixels.max(initial=0) < 16:  # Pillow drops the lower 8 bits
        raise HeaderError("a TIFF of planes that uses only 12 of 16 bits; store it by pixel")
    return pixels


def _deep_to_rgb(
    values: np.ndarray, header: ImageHeader, warn: Warn, inverted: bool = False
) -> np.ndarray:
    """Convert uint16 gray, BGR or BGRA values to RGB."""
    values = values.reshape(*values.shape[:2], -1)
    if header.associated_alpha:
        values = conversion.unmultiply(values[..., :3], values[..., 3:])
    pixels = reduce_depth(values[..., :3], header.significant_bits, warn, inverted)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., ::-1]
    return _orient(to_srgb(np.ascontiguousarray(pixels), header.profile, warn), header.orientation)
