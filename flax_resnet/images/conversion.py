"""Conversion of decoded images to uint8 RGB: depth, alpha and color profiles."""

import functools
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms, ImageOps

from flax_resnet.images.headers import MAX_PROFILE_BYTES, HeaderError
from flax_resnet.images.pixels import PixelFormat

Warn = Callable[[str, str], None]  # receives the kind of an oddity, and what was done

_SRGB_TOLERANCE = 3  # profiles of sRGB by different makers differ by less
_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


def reduce_depth(
    values: np.ndarray, significant_bits: int | None, warn: Warn, inverted: bool = False
) -> np.ndarray:
    """Return the upper 8 bits of 16-bit values.

    Values of fewer bits are common in files of 16 bits: cameras and scanners measure 10 to 14.

    Args:
      values: uint16, of any shape.
      significant_bits: number of bits in use, if the file states it. A file may state it and
        still hold values that were scaled to all 16 bits, as the specification of PNG demands.
      warn: called if the range had to be guessed.
      inverted: whether 0 is white.
    """
    largest = int(values.max(initial=0))
    bits = 16
    if significant_bits is not None and 8 <= significant_bits < 16:
        bits = significant_bits if largest < 1 << significant_bits else 16
    elif significant_bits is None and 0 < largest < 1 << 12:
        bits = 12 if largest > 255 else 8
        warn(
            f"{bits}-bit values",
            f"16-bit values reach only {largest:,} of 65,535: taken as {bits}-bit values,"
            f" {2**bits - 1:,} as white",
        )
    elif significant_bits is None and 0 < largest < 1 << 14:
        warn(
            "dark 16-bit values",
            f"16-bit values reach only {largest:,} of 65,535: taken as they are; if 14-bit values"
            " were stored, scale them",
        )
    upper = (values >> (bits - 8)).astype(np.uint8)
    return 255 - upper if inverted else upper


def stored_bits(values: np.ndarray, significant_bits: int | None, warn: Warn) -> int | None:
    """Return the bits that the values of a PNG use, of which it states ``significant_bits``.

    The specification demands values that are scaled to 16 bits, in which a dark image would have
    only zeros below the significant bits. Many programs store them as measured.

    Args:
      values: uint16, of any shape.
      significant_bits: number of bits in the file, or None.
      warn: called if the values fit both.
    """
    if significant_bits is None or not 8 <= significant_bits < 16:
        return significant_bits
    largest, unused = int(values.max(initial=0)), (1 << (16 - significant_bits)) - 1
    if not 0 < largest < 1 << significant_bits or (values & np.uint16(unused)).any():
        return significant_bits
    warn(
        "dark values of stated bits",
        f"16-bit values reach only {largest:,} of 65,535, all multiples of {unused + 1}: taken as"
        f" {significant_bits}-bit values that were scaled to 16 bits, as PNG demands; if they were"
        " not, scale them",
    )
    return 16


def convert_pixels(values: np.ndarray, pixels: PixelFormat, warn: Warn) -> np.ndarray:
    """Convert values ``(H, W, C)`` of 8 or 16 bits to another form.

    Raises:
      HeaderError: they have another number of channels, and are not gray or RGB.
    """
    channels = values.shape[2]
    if channels == 3 and pixels.channels == 1:
        if (values[..., :1] != values[..., 1:]).any():
            warn("gray", "colors are converted to gray by their luma (ITU-R BT.601)")
        values = luma(values)
    elif channels == 1 and pixels.channels == 3:
        values = np.repeat(values, 3, axis=2)
    elif channels != pixels.channels:
        raise HeaderError(f"it has {channels} channels, not {pixels.channels}")
    if values.dtype == pixels.dtype:
        return values
    if pixels.bits == 8:
        return reduce_depth(values, None, warn)
    return values * np.uint16(257)  # the largest value becomes the largest


def luma(colors: np.ndarray) -> np.ndarray:
    """Return the luma ``(H, W, 1)`` of RGB colors (ITU-R BT.601), as Pillow's mode L.

    Of gray colors it is their value.
    """
    red, green, blue = np.moveaxis(colors.astype(np.uint32), 2, 0)
    gray = (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16
    return gray[..., None].astype(colors.dtype)


def orient(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return values of any number of channels upright, by their EXIF orientation."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    axes = {2: 1, 3: (0, 1), 4: 0, 6: 1, 7: (0, 1), 8: 0}.get(orientation, ())
    return np.ascontiguousarray(np.flip(values, axes))


def unmultiply(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the colors ``(H, W, C)`` that were multiplied with ``alpha`` ``(H, W, 1)``."""
    full = np.iinfo(colors.dtype).max
    wide = colors.astype(np.uint32) * full // np.maximum(alpha, 1)
    return np.minimum(wide, full).astype(colors.dtype)


def pillow_to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to RGB as :func:`flax_resnet.decoding.decode_rgb` does.

    Raises:
      ValueError: its values have no defined range, or its mode is unknown.
    """
    profile = image.info.get("icc_profile", b"")
    image = ImageOps.exif_transpose(image)
    return mode_to_rgb(image, profile, lambda *_: None)


def mode_to_rgb(
    image: Image.Image, profile: bytes, warn: Warn, significant_bits: int | None = None
) -> np.ndarray:
    """Convert any mode of Pillow to RGB, with the image's color profile."""
    if image.mode in ("F", "I"):
        kind = "floats" if image.mode == "F" else "integers"
        raise HeaderError(f"32-bit {kind} have no defined range; convert them to 8 or 16 bits")
    if image.mode.startswith("I;16"):
        gray = reduce_depth(np.asarray(image).astype(np.uint16), significant_bits, warn)
        return to_srgb(np.repeat(gray[..., None], 3, axis=2), profile, warn)
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode == "RGBa":
        image = image.convert("RGBA")
    elif image.mode == "LAB":
        return np.array(ImageCms.applyTransform(image, _lab_to_srgb()))
    if image.mode != "CMYK":
        return to_srgb(np.array(image.convert("RGB")), profile, warn)
    transform = profile_transform(profile) if profile[16:20] == b"CMYK" else None
    if profile and transform is None:
        _warn_unusable(warn)
    return np.array(
        image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform)
    )


def to_srgb(pixels: np.ndarray, profile: bytes, warn: Warn) -> np.ndarray:
    """Convert uint8 RGB ``(H, W, 3)`` from the colors of an ICC profile to sRGB."""
    if not profile:
        return pixels
    mode = _MODES.get(profile[16:20])
    is_gray = mode == "L" and (pixels[..., :1] == pixels).all()
    transform = profile_transform(profile) if mode == "RGB" or is_gray else None
    if transform is None:
        _warn_unusable(warn)
        return pixels
    if transform is SAME:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if is_gray else pixels)
    return np.array(ImageCms.applyTransform(image, transform))


def _warn_unusable(warn: Warn) -> None:
    warn("color profile", "a color profile that is corrupt or of another kind was ignored")


SAME = object()  # a profile of sRGB


def profile_transform(profile: bytes) -> object:
    """Return the transform from a profile to sRGB, ``SAME`` for sRGB, None if it is unusable."""
    usable = profile[16:20] in _MODES and len(profile) <= MAX_PROFILE_BYTES
    return _build_transform(profile) if usable else None


@functools.lru_cache(maxsize=16)  # which also keeps the profiles
def _build_transform(profile: bytes) -> object:
    mode = _MODES[profile[16:20]]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        grid = np.stack(np.meshgrid(*[steps] * 3), -1).reshape(-1, 18, 3)
        grid = grid if mode == "RGB" else np.arange(256, dtype=np.uint8).reshape(16, 16)
        mapped = np.array(ImageCms.applyTransform(Image.fromarray(grid), transform))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    difference = mapped.astype(int) - grid.reshape(*grid.shape[:2], -1)
    return SAME if abs(difference).max() <= _SRGB_TOLERANCE else transform


@functools.cache
def _lab_to_srgb() -> object:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
