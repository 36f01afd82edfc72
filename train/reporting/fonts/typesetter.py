"""Lines of text on an image, in any script that the machine has a font for."""

import bisect
import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont, features

from train.reporting.fonts.choice import TextPart, parts

Color = tuple[int, int, int]
# Sizes in pixels of the bitmaps in fonts of colored emoji: those of Noto and of Apple.
_BITMAP_SIZES = (109, 160, 136, 128, 96, 64)
_BITMAP_SCALE = 0.9  # of their height to that of other fonts


class Typesetter:
    """Measures, breaks and draws lines of one font size.

    Args:
      size: of the font in pixels.
    """

    def __init__(self, size: int):
        self.size = size
        self.line_height = round(1.25 * size)

    def width(self, line: str) -> float:
        """Return the width of a line in pixels."""
        return sum(self._part_width(part) for part in parts(line))

    def wrap(self, line: str, width: float) -> list[str]:
        """Break a line between words; words that are too long, between characters."""
        lines: list[str] = []
        for word in re.split(r"\s+(?!%)", line.strip()):  # 98 % stays together
            if lines and self.width(f"{lines[-1]} {word}") <= width:
                lines[-1] += f" {word}"
            else:
                lines += self._pieces(word, width)
        return lines

    def shorten(self, line: str, width: float) -> str:
        """Return the line with an ellipsis for its middle if it is too wide."""
        if self.width(line) <= width:
            return line

        def cut(kept: int) -> str:
            end = -(-2 * kept // 3)  # the end of a file name says more than its begin
            return f"{line[: kept - end]}…{line[len(line) - end :]}"

        too_wide = bisect.bisect(range(len(line)), False, key=lambda n: self.width(cut(n)) > width)
        return cut(max(0, too_wide - 1))

    def draw(self, image: Image.Image, x: float, baseline: float, line: str, color: Color) -> None:
        """Draw a line that begins at ``x``."""
        brush = ImageDraw.Draw(image)
        for part in parts(line):
            font, scale = _font(part.path, self.size)
            if scale == 1:
                place = (x, baseline)
                brush.text(place, part.text, fill=color, font=font, anchor="ls", **_direction(font))
            else:
                _paste_bitmaps(image, x, baseline, part.text, font, scale)
            x += self._part_width(part)

    def _part_width(self, part: TextPart) -> float:
        return _width(part.text, part.path, self.size)

    def _pieces(self, word: str, width: float) -> Iterator[str]:
        piece = ""
        for character in word:
            joins = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
            joins |= piece.endswith("\u200d")  # which joins emoji
            if piece and not joins and self.width(piece + character) > width:
                yield piece
                piece = ""
            piece += character
        if piece:
            yield piece


@cache
def shapes_scripts() -> bool:
    """Return whether letters of Arabic and Indic scripts are joined and ordered."""
    return features.check("raqm")


@cache
def _font(path: str | None, size: int) -> tuple[ImageFont.FreeTypeFont, float]:
    """Return a font, and the factor from its size to ``size``: not 1 if it has only bitmaps."""
    if path is None:
        return ImageFont.load_default(size), 1.0
    for candidate in itertools.chain((size,), _BITMAP_SIZES):
        try:
            scale = 1.0 if candidate == size else _BITMAP_SCALE * size / candidate
            return ImageFont.truetype(path, candidate), scale
        except OSError:  # a font of bitmaps has no other sizes
            continue
    return ImageFont.load_default(size), 1.0


@lru_cache(maxsize=4096)
def _width(text: str, path: str | None, size: int) -> float:
    font, scale = _font(path, size)
    return font.getlength(text, **_direction(font)) * scale


def _direction(font: ImageFont.FreeTypeFont) -> dict[str, str]:
    """Return the direction of lines; names in a right-to-left script keep theirs within it."""
    return {"direction": "ltr"} if font.layout_engine == ImageFont.Layout.RAQM else {}


def _paste_bitmaps(
    image: Image.Image, x: float, baseline: float, text: str, font: ImageFont.FreeTypeFont, scale
) -> None:
    """Draw colored bitmaps, reduced to the size of the text."""
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    bitmaps = Image.new("RGBA", (right - left, bottom - top))
    ImageDraw.Draw(bitmaps).text((-left, -top), text, font=font, anchor="ls", embedded_color=True)
    reduced = bitmaps.resize(size, Image.Resampling.BOX)
    image.paste(reduced, (round(x + left * scale), round(baseline + top * scale)), reduced)
