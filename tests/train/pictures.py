"""Pictures of every format, for the tests."""

import io

import cv2
import numpy as np
from PIL import Image


def photograph(seed=0, height=120, width=160):
    """A smooth uint8 RGB picture: large blobs of colour, as photographs have."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(picture, kind, mode=None, **options):
    """A uint8 array as the bytes of a file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    """EXIF that tells how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def every_format():
    """``{name: (bytes, the uint8 RGB that they should give, largest difference)}``."""
    rgb = photograph()
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    greys = np.repeat(grey[..., None], 3, axis=2)
    palette = Image.fromarray(rgb).quantize(64)
    colours = np.asarray(palette.convert("RGB"))
    deep = rgb.astype(np.uint16) * 257
    bgr16 = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    frames = [Image.fromarray(photograph(seed)).quantize(64) for seed in (1, 2)]
    upside = np.rot90(rgb, -1)
    sharp = dict(quality=100, subsampling=0)
    return {
        "jpeg": (encode(rgb, "JPEG", **sharp), rgb, 4),
        "progressive.jpeg": (encode(rgb, "JPEG", progressive=True, **sharp), rgb, 4),
        "grey.jpeg": (encode(grey, "JPEG", **sharp), greys, 4),
        "cmyk.jpeg": (encode(rgb, "JPEG", "CMYK", quality=100), rgb, 4),
        "turned.jpeg": (encode(rgb, "JPEG", exif=turned(6), **sharp), upside, 4),
        "png": (encode(rgb, "PNG"), rgb, 0),
        "grey.png": (encode(grey, "PNG"), greys, 0),
        "palette.png": (encode(palette, "PNG"), colours, 0),
        "alpha.png": (encode(rgb, "PNG", "RGBA"), rgb, 0),
        "grey_alpha.png": (encode(grey, "PNG", "LA"), greys, 0),
        "16bit.png": (bgr16, rgb, 0),
        "grey_16bit.png": (encode(grey.astype(np.uint16) * 257, "PNG"), greys, 0),
        "1bit.png": (
            encode(grey, "PNG", "1"),
            np.asarray(Image.fromarray(grey).convert("1").convert("RGB")),
            0,
        ),
        "turned.png": (encode(rgb, "PNG", exif=turned(6)), upside, 0),
        "gif": (encode(palette, "GIF"), colours, 0),
        "animated.gif": (
            encode(palette, "GIF", save_all=True, append_images=frames),
            colours,
            0,
        ),
        "webp": (encode(rgb, "WEBP", lossless=True), rgb, 0),
        "turned.webp": (encode(rgb, "WEBP", lossless=True, exif=turned(6)), upside, 0),
        "bmp": (encode(rgb, "BMP"), rgb, 0),
        "tiff": (encode(rgb, "TIFF"), rgb, 0),
        "16bit.tiff": (encode(grey.astype(np.uint16) * 257, "TIFF"), greys, 0),
    }
