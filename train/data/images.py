"""Resizing and encoding of uint8 images, with OpenCV."""

import numpy as np

from flax_resnet.decoding import cv2  # imported there, with a limit on pixels

# Several threads each process an image of their own; OpenCV's threads would only compete.
cv2.setNumThreads(0)


def resize_area(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrink an image ``(H, W, C)``; each new pixel is the mean of the area it covers."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def resize_bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image ``(H, W, C)`` bilinearly, without antialiasing."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def encode_png(image: np.ndarray) -> bytes:
    """Encode an RGB ``(H, W, 3)`` or gray ``(H, W)`` image as PNG."""
    return cv2.imencode(".png", _bgr(image))[1].tobytes()


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode an RGB ``(H, W, 3)`` image as JPEG of ``quality`` 0…100."""
    return cv2.imencode(".jpg", _bgr(image), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _bgr(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
