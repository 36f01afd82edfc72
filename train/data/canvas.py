"""Images and masks of any size on a canvas of one size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from train.data.images import resize_area
from train.data.masks import MaskSource
from train.data.record_labels import THREADS
from train.data.skipped import Finding
from train.runtime.formatting import format_percent, pluralize

SHRUNK = "shrunk"  # kind of the finding
_MAX_READ = 2000  # images; about half a second for photographs


def fitted_size(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the size (H, W) of an image on its canvas: its own, or the largest that fits."""
    height, width = size
    rows, columns = canvas
    if height <= rows and width <= columns:
        return height, width
    # In integers, so that the size does not depend on rounding.
    if height * columns >= width * rows:
        return rows, max(1, (2 * width * rows + height) // (2 * height))
    return max(1, (2 * height * columns + width) // (2 * width)), columns


def place_on_canvas(
    image: np.ndarray,
    mask: np.ndarray,
    canvas: tuple[int, int],
    fill: Sequence[int],
    ignored: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its mask in the upper left corner of canvases.

    If they are larger than the canvas, they are shrunk to fit, without changing their aspect ratio:
    each pixel of the image is the mean of its area, each of the mask has the nearest class.

    Args:
      image: uint8 or uint16 ``(H, W, C)``.
      mask: uint8 ``(H, W)``.
      canvas: its height and width.
      fill: values of the rest of the canvas ``(C,)``.
      ignored: class of the rest of the canvas.
    """
    size = fitted_size(mask.shape, canvas)
    if size != mask.shape:
        image, mask = resize_area(image, size[1], size[0]), nearest(mask, size)
    if size == tuple(canvas):
        return image, mask
    image_canvas = np.empty((*canvas, image.shape[2]), image.dtype)
    image_canvas[:] = fill
    mask_canvas = np.full(canvas, ignored, np.uint8)
    image_canvas[: size[0], : size[1]] = image
    mask_canvas[: size[0], : size[1]] = mask
    return image_canvas, mask_canvas


def nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask ``(H, W)`` to ``size``, (H, W): the class at the center of each pixel."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[rows[:, None], columns]


def describe_shrunk(source: MaskSource, canvas: tuple[int, int]) -> list[Finding]:
    """Return how many images are larger than the canvas, if any; of many images about how many."""
    chosen = np.unique(np.linspace(0, len(source) - 1, _MAX_READ).astype(int)).tolist()

    def size(index: int) -> tuple[int, int]:
        try:
            return source.size(index)
        except (OSError, ImageDecodeError):  # counts as corrupt
            return 0, 0

    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(size, chosen))
    larger = [size for size in sizes if fitted_size(size, canvas) != size]
    if not larger:
        return []
    count = f"{len(larger):,} of {pluralize(len(source), 'image')}"
    if len(chosen) < len(source):
        count = f"about {format_percent(len(larger) / len(chosen))} of the {len(source):,} images"
    height, width = max(larger, key=lambda size: max(size[0] / canvas[0], size[1] / canvas[1]))
    text = (
        f"{count} of {source.split!r} do not fit on the canvas of {canvas[1]}×{canvas[0]} pixels"
        f" (dataset.image_size) and are shrunk; the largest has {width}×{height}"
    )
    return [Finding(SHRUNK, len(larger), (), text, is_warning=False)]
