"""Grids of images as PNG files, drawn by matplotlib."""

import io
import os
import struct
import textwrap
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from flax_resnet.files import write_atomically
from flax_resnet.text import error_reason, truncate

MAX_NAMED = 30  # classes of a confusion matrix whose names can be read
_MAX_COUNTED = 12  # classes whose counts are shown: to draw thousands of texts takes seconds


class Plots:
    """Image files in a folder. If one cannot be drawn, a warning is given and the run continues."""

    def __init__(self, folder: str, warn: Callable[[str], None]):
        self._folder, self._warn = folder, warn

    def draw(self, name: str, draw: Callable[[str], None]) -> None:
        """Call ``draw`` with the path of the file ``name``."""
        try:
            draw(os.path.join(self._folder, name))
        except Exception as error:
            self._warn(f"cannot draw {name}: {type(error).__name__}: {error_reason(error)}")

    def draw_samples(self, take: Callable[[], tuple[np.ndarray, Sequence[str]]]) -> None:
        """Draw ``samples.png`` of the images and captions that ``take`` returns."""
        self.draw("samples.png", lambda path: draw_grid(path, *take()))


def draw_grid(path: str, images: np.ndarray, captions: Sequence[str], columns: int = 8) -> None:
    """Write the PNG of :func:`grid_png`."""
    write_atomically(path, grid_png(images, captions, columns))


def grid_png(images: np.ndarray, captions: Sequence[str], columns: int = 8) -> bytes:
    """Return a PNG: a grid of uint8 ``(N, H, W, 3)`` images with captions above."""
    from matplotlib.figure import Figure  # takes most of a second to import
    from matplotlib.image import AxesImage

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    is_long = any(len(line) > 19 for caption in captions for line in caption.splitlines())
    font_size, letters = (6.5, 23) if is_long else (8, 19)  # letters are those of a cell's width
    captions = ["\n".join(_wrap(caption, letters)) for caption in captions]
    lines = max(caption.count("\n") + 1 for caption in captions)
    side, gap, above = 1.2, 0.1, 0.05 + font_size / 54 * lines  # inches
    tall = side * images.shape[1] / images.shape[2]
    wide, high = side + gap, tall + gap + above
    # Axes that fill the figure, in inches from its top left. One pair for all images: to
    # lay out one for each takes seconds, during which the run waits.
    figure = Figure(figsize=(columns * wide, rows * high), dpi=110)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, columns * wide), ylim=(rows * high, 0))
    axis.set_axis_off()
    for i, (image, caption) in enumerate(zip(images, captions, strict=False)):
        left, top = i % columns * wide + gap / 2, i // columns * high + gap / 2 + above
        extent = (left, left + side, top + tall, top)
        drawn = AxesImage(axis, extent=extent, interpolation=_interpolation(image), origin="upper")
        drawn.set_data(image)
        axis.add_image(drawn)
        place = dict(horizontalalignment="center", verticalalignment="bottom", clip_on=False)
        middle = left + side / 2
        axis.text(middle, top - 0.03, caption, fontsize=font_size, parse_math=False, **place)
    return _png(figure)


def confusion_png(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Return a PNG of a confusion matrix, labels in rows; each row is colored by its shares."""
    from matplotlib.figure import Figure

    size = len(matrix)
    figure = Figure(figsize=(6, 6), layout="constrained", dpi=110)
    axis = figure.subplots()
    axis.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), "Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="label")
    if size <= MAX_NAMED:
        names = [truncate(name, 20) for name in class_names]
        axis.set_xticks(range(size), names, rotation=90, fontsize=7, parse_math=False)
        axis.set_yticks(range(size), names, fontsize=7, parse_math=False)
    if size <= _MAX_COUNTED:
        for (row, column), count in np.ndenumerate(matrix):
            color = "white" if 2 * count > matrix[row].sum() else "black"
            place = dict(horizontalalignment="center", verticalalignment="center")
            axis.text(column, row, f"{count}", fontsize=7, color=color, **place)
    return _png(figure)


def png_size(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, from its header."""
    return struct.unpack(">II", png[16:24])


def draw_explanation(path: str, square: np.ndarray, heat: np.ndarray, caption: str) -> None:
    """Write a PNG: the uint8 network input ``(H, W, 3)``, and beside it with its Grad-CAM map.

    ``heat`` is the map, ``(H, W)`` in 0…1.
    """
    from matplotlib.figure import Figure

    from flax_resnet.gradcam import overlay

    figure = Figure(
        figsize=(6, 3 * square.shape[0] / square.shape[1] + 0.4), layout="constrained", dpi=110
    )
    for axis, image in zip(figure.subplots(1, 2), (square, overlay(square, heat)), strict=True):
        axis.axis("off")
        axis.imshow(image, interpolation=_interpolation(image))
    figure.suptitle(caption, fontsize=9, parse_math=False)
    write_atomically(path, _png(figure))


def _wrap(caption: str, width: int) -> list[str]:
    """Return the lines of the caption, long ones broken into several."""
    return [part for line in caption.splitlines() for part in textwrap.wrap(line, width)]


def _interpolation(image: np.ndarray) -> str:
    return "nearest" if len(image) < 64 else "antialiased"  # small images show their pixels


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # about letters of class names that the font lacks
        warnings.simplefilter("ignore")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
