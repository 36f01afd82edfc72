"""Image files in all formats."""

import io

import cv2
import numpy as np
from PIL import Image


def photograph(seed=0, height=120, width=160):
    """Return a smooth uint8 RGB image with large areas of color, as photographs have."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(picture, kind, mode=None, **options):
    """Encode a uint8 array or PIL image as the bytes of a file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(orientation):
    """Return EXIF data with the camera's orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def every_format():
    """Return ``{name: (bytes, expected uint8 RGB, maximum difference)}``."""
    rgb = photograph()
    gray = np.asarray(Image.fromarray(rgb).convert("L"))
    grays = np.repeat(gray[..., None], 3, axis=2)
    palette = Image.fromarray(rgb).quantize(64)
    colors = np.asarray(palette.convert("RGB"))
    deep = rgb.astype(np.uint16) * 257
    bgr16 = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    frames = [Image.fromarray(photograph(seed)).quantize(64) for seed in (1, 2)]
    upside = np.rot90(rgb, -1)
    sharp = dict(quality=100, subsampling=0)
    return {
        "jpeg": (encode(rgb, "JPEG", **sharp), rgb, 4),
        "progressive.jpeg": (encode(rgb, "JPEG", progressive=True, **sharp), rgb, 4),
        "gray.jpeg": (encode(gray, "JPEG", **sharp), grays, 4),
        "cmyk.jpeg": (encode(rgb, "JPEG", "CMYK", quality=100), rgb, 4),
        "rotated.jpeg": (encode(rgb, "JPEG", exif=rotated(6), **sharp), upside, 4),
        "png": (encode(rgb, "PNG"), rgb, 0),
        "gray.png": (encode(gray, "PNG"), grays, 0),
        "palette.png": (encode(palette, "PNG"), colors, 0),
        "alpha.png": (encode(rgb, "PNG", "RGBA"), rgb, 0),
        "gray_alpha.png": (encode(gray, "PNG", "LA"), grays, 0),
        "16bit.png": (bgr16, rgb, 0),
        "gray_16bit.png": (encode(gray.astype(np.uint16) * 257, "PNG"), grays, 0),
        "1bit.png": (
            encode(gray, "PNG", "1"),
            np.asarray(Image.fromarray(gray).convert("1").convert("RGB")),
            0,
        ),
        "rotated.png": (encode(rgb, "PNG", exif=rotated(6)), upside, 0),
        "gif": (encode(palette, "GIF"), colors, 0),
        "animated.gif": (
            encode(palette, "GIF", save_all=True, append_images=frames),
            colors,
            0,
        ),
        "webp": (encode(rgb, "WEBP", lossless=True), rgb, 0),
        "rotated.webp": (encode(rgb, "WEBP", lossless=True, exif=rotated(6)), upside, 0),
        "bmp": (encode(rgb, "BMP"), rgb, 0),
        "tiff": (encode(rgb, "TIFF"), rgb, 0),
        "16bit.tiff": (encode(gray.astype(np.uint16) * 257, "TIFF"), grays, 0),
    }
