"""Pictures as PNG files: grids of images and explanations, with titles, captions and file names."""

import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from flax_resnet.files import write_atomically
from flax_resnet.text import error_reason, one_line
from train.data.images import encode_png
from train.reporting.fonts.choice import warn_of_missing
from train.reporting.fonts.typesetter import Color, Typesetter, shapes_scripts

_WIDTH = 1200  # pixels of a grid, about
_GAP, _MARGIN = 12, 16
_SMALL = 64  # pixels; smaller images show their pixels
_BACKGROUND, _INK, _PALE = (255, 255, 255), (32, 33, 36), (95, 99, 104)
_TITLE, _CAPTION, _NAME = 16, 12, 10  # sizes of fonts
_BAR_WIDTH = 14  # of the scale of a Grad-CAM map


class Pictures(NamedTuple):
    """Images for a grid.

    Attributes:
      images: uint8 ``(N, H, W, 3)``.
      captions: a text of one or more lines for each, shown above it.
      names: the file of each, shown below it; empty for none.
      title: the run, what the grid shows of it, and how many of how many images.
    """

    images: np.ndarray
    captions: Sequence[str]
    names: Sequence[str] = ()
    title: str = ""


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

    def draw_samples(self, take: Callable[[], Pictures]) -> None:
        """Draw ``samples.png`` of the images that ``take`` returns."""
        self.draw("samples.png", lambda path: draw_grid(path, take()))


def draw_grid(path: str, pictures: Pictures, columns: int = 8) -> None:
    """Write the PNG of :func:`grid_png`."""
    write_atomically(path, grid_png(pictures, columns))


def grid_png(pictures: Pictures, columns: int = 8) -> bytes:
    """Return a PNG: a title, and a grid of images with their captions and file names."""
    images, count = pictures.images, len(pictures.images)
    columns = min(columns, count)
    side = _shown_width(images.shape[2], (_WIDTH - 2 * _MARGIN) // max(columns, 6) - _GAP)
    size = side, max(1, round(side * images.shape[1] / images.shape[2]))
    title, caption, name = map(Typesetter, (_TITLE, _CAPTION, _NAME))
    width = columns * (side + _GAP) - _GAP
    heading = _lines(title, pictures.title, max(width, 4 * side))
    captions = [_lines(caption, text, side) for text in pictures.captions]
    names = [name.shorten(one_line(text), side) for text in pictures.names]
    warn_of_missing([pictures.title, *pictures.captions, *pictures.names], shapes_scripts())

    rows = [range(first, min(first + columns, count)) for first in range(0, count, columns)]
    above = [max(len(captions[i]) for i in row) * caption.line_height for row in rows]
    below = name.line_height if names else 0
    top = _MARGIN + (len(heading) * title.line_height + _GAP) * bool(heading)
    height = top + sum(above) + len(rows) * (size[1] + below + 2 * _GAP)
    width = max([width, *(round(title.width(line)) for line in heading)])
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height), _BACKGROUND)
    _draw_lines(sheet, title, heading, _MARGIN, _MARGIN, _INK)
    for row, lines_height in zip(rows, above, strict=True):
        middle = top + lines_height
        for number, i in enumerate(row):
            left = _MARGIN + number * (side + _GAP)
            start = middle - len(captions[i]) * caption.line_height
            _draw_lines(sheet, caption, captions[i], left, start, _INK)
            sheet.paste(_resized(images[i], size), (left, middle + _GAP // 3))
            if names:
                _draw_lines(sheet, name, [names[i]], left, middle + size[1] + _GAP // 2, _PALE)
        top = middle + size[1] + below + 2 * _GAP
    return encode_png(np.asarray(sheet))


def draw_explanation(
    path: str, square: np.ndarray, heat: np.ndarray, title: str, lines: Sequence[str], name: str
) -> None:
    """Write a PNG: the network's input, and beside it with its Grad-CAM map and a scale.

    Args:
      path: the file.
      square: the input, uint8 ``(H, W, 3)``.
      heat: the map, ``(H, W)`` in 0…1.
      title: the image's file.
      lines: what is said of it below the title.
      name: the class whose support the map shows.
    """
    from flax_resnet.gradcam import overlay

    heading, text = Typesetter(_TITLE), Typesetter(_CAPTION)
    side = _shown_width(square.shape[1], 320)
    size = side, max(1, round(side * square.shape[0] / square.shape[1]))
    width = 2 * side + _GAP
    scale = np.repeat(np.linspace(1, 0, size[1])[:, None], _BAR_WIDTH, axis=1)
    bar = overlay(np.full((*scale.shape, 3), 128, np.uint8), scale)
    titles = _lines(heading, title, width)
    subtitles = [part for line in lines for part in _lines(text, line, width)]
    below = [_lines(text, label, side) for label in ("network input", f"Grad-CAM of {name}")]
    warn_of_missing([title, *lines, name], shapes_scripts())

    top = _MARGIN + len(titles) * heading.line_height
    middle = top + len(subtitles) * text.line_height + _GAP
    high = middle + size[1] + max(map(len, below)) * text.line_height + _GAP + _MARGIN
    wide = 2 * _MARGIN + width + _GAP + _BAR_WIDTH + 2 * _CAPTION
    sheet = Image.new("RGB", (wide, high), _BACKGROUND)
    _draw_lines(sheet, heading, titles, _MARGIN, _MARGIN, _INK)
    _draw_lines(sheet, text, subtitles, _MARGIN, top, _PALE)
    for number, image in enumerate((square, overlay(square, heat))):
        left = _MARGIN + number * (side + _GAP)
        sheet.paste(_resized(image, size), (left, middle))
        _draw_lines(sheet, text, below[number], left, middle + size[1] + _GAP // 3, _INK)
    left = _MARGIN + width + _GAP
    sheet.paste(Image.fromarray(bar), (left, middle))
    for label, y in (("1", middle), ("0", middle + size[1] - text.line_height)):
        _draw_lines(sheet, text, [label], left + _BAR_WIDTH + 4, y, _PALE)
    write_atomically(path, encode_png(np.asarray(sheet)))


def png_size(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, from its header."""
    return struct.unpack(">II", png[16:24])


def _lines(typesetter: Typesetter, text: str, width: float) -> list[str]:
    """Return the lines of a text, long ones broken, with hostile characters spelled."""
    return [part for line in text.split("\n") for part in typesetter.wrap(one_line(line), width)]


def _draw_lines(
    sheet: Image.Image, typesetter: Typesetter, lines: Sequence[str], x: int, y: int, color: Color
) -> None:
    """Draw lines below one another from the top left corner ``(x, y)``."""
    for line in lines:
        typesetter.draw(sheet, x, y + typesetter.size, line, color)
        y += typesetter.line_height


def _shown_width(width: int, available: int) -> int:
    """Return the width at which images are shown; small ones enlarged by a whole number."""
    return max(1, available // width) * width if width < _SMALL else available


def _resized(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    is_small = len(image) < _SMALL
    method = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(image)).resize(size, method)
