"""Resizing and encoding of images, with OpenCV."""

import numpy as np

from flax_resnet.decoding import cv2  # imported there, with a limit on pixels

# Several threads each process an image of their own; OpenCV's threads would only compete.
cv2.setNumThreads(0)


def resize_area(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrink an image ``(H, W, C)``; each new pixel is the mean of the area it covers."""
    return _resize(image, width, height, cv2.INTER_AREA)


def resize_bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image ``(H, W, C)`` bilinearly, without antialiasing."""
    return _resize(image, width, height, cv2.INTER_LINEAR)


def encode_png(image: np.ndarray) -> bytes:
    """Encode a uint8 RGB ``(H, W, 3)``, RGBA ``(H, W, 4)`` or gray ``(H, W)`` image as PNG."""
    return cv2.imencode(".png", _bgr(image))[1].tobytes()


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode a uint8 RGB ``(H, W, 3)`` image as JPEG of ``quality`` 0…100."""
    return cv2.imencode(".jpg", _bgr(image), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _resize(image: np.ndarray, width: int, height: int, interpolation: int) -> np.ndarray:
    if image.shape[2] > 4:  # of more channels OpenCV averages no areas
        parts = [image[..., first : first + 4] for first in range(0, image.shape[2], 4)]
        resized = [_resize(part, width, height, interpolation) for part in parts]
        return np.concatenate(resized, axis=2)
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    return resized.reshape(height, width, -1)  # OpenCV drops the axis of one channel


def _bgr(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return image
    return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[-1]]])
