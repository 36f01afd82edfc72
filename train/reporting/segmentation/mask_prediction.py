"""Predict the masks of files, and write them."""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flax_resnet.dense.pixel_classes import PixelClassifier
from flax_resnet.dense.views import SAME, PictureView
from flax_resnet.files import write_atomically
from flax_resnet.images.mask_files import color_classes, encode_mask, sign_png
from flax_resnet.preprocessing import to_viewable
from flax_resnet.runs import Run, to_pixels
from train.data.canvas import fitted_size, nearest
from train.data.images import encode_png, resize_area
from train.data.prefetch import Prefetcher
from train.reporting.output_names import png_files
from train.reporting.segmentation.mask_lines import MaskPrediction, class_areas
from train.runtime.errors import RunError
from train.runtime.files import writing


def predict_masks(
    run: Run,
    files: Sequence[str],
    masks: str,
    overlays: str | None = None,
    shrink: bool = False,
    views: Sequence[PictureView] = SAME,
) -> Iterator[MaskPrediction]:
    """Yield the predictions of files in order, once their masks are written.

    Args:
      run: a run whose network has outputs of every pixel.
      files: image files; one is decoded ahead, since they may be large.
      masks: folder for the masks, which is made if it does not exist.
      overlays: folder for pictures with the colors of their classes; None for none.
      shrink: whether pictures that are larger than the canvas are shrunk to it, as in evaluation,
        instead of computed in tiles.
      views: as in :class:`PixelClassifier`.

    Raises:
      RunError: a file cannot be written, or there are more classes than a mask can have.
    """
    for folder in filter(None, (masks, overlays)):
        with writing(folder):
            os.makedirs(folder, exist_ok=True)

    def read(file: str) -> tuple[str, np.ndarray | ValueError]:
        try:
            return file, to_pixels(file, run.preprocessing.pixels)
        except ValueError as error:
            return file, error

    try:
        classify: Callable[[np.ndarray], np.ndarray] = PixelClassifier(run, views)
    except ValueError as error:
        raise RunError(str(error)) from error
    if shrink:
        classify = shrinking(classify, run.preprocessing.shape[:2])
    mask_files = png_files(files, masks)
    overlay_files = png_files(files, overlays) if overlays else [None] * len(files)
    with Prefetcher(files, read, depth=1) as decoded:
        outputs = zip(decoded, mask_files, overlay_files, strict=True)
        for (file, image), mask, overlay in outputs:
            if isinstance(image, ValueError):
                yield MaskPrediction(file, error=str(image))
                continue
            try:
                classes = classify(image)
            except ValueError as error:
                yield MaskPrediction(file, error=f"{file}: {error}")
                continue
            _write(mask, encode_mask(classes))
            if overlay:
                _write(overlay, encode_png(color_classes(to_viewable(image), classes)))
            yield MaskPrediction(file, class_areas(classes, run.class_name), mask, overlay)


def shrinking(
    classify: Callable[[np.ndarray], np.ndarray], canvas: tuple[int, int]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return ``classify`` of pictures shrunk to fit a canvas, with masks in their own size."""

    def classify_shrunk(image: np.ndarray) -> np.ndarray:
        own, size = image.shape[:2], fitted_size(image.shape[:2], canvas)
        if size == own:
            return classify(image)
        return nearest(classify(resize_area(image, size[1], size[0])), own)

    return classify_shrunk


def _write(path: str, content: bytes) -> None:
    """Write a PNG, signed, so that a later command may replace it."""
    with writing(path):
        write_atomically(path, sign_png(content))
