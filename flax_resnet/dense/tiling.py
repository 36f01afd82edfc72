"""Overlapping tiles of pictures that are larger than the input of a network."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_MAX_ALIGNMENT = 32  # stride of a ResNet
_PARTS = 8  # a tile's side has this many times its margin


class Tile(NamedTuple):
    """A tile and the part of its picture whose classes are taken from it.

    Attributes:
      top: row of the picture at which the tile starts.
      left: column at which it starts.
      rows: rows of the picture that are taken from the tile.
      columns: columns of the picture that are taken from the tile.
    """

    top: int
    left: int
    rows: slice
    columns: slice

    @property
    def center(self) -> tuple[slice, slice]:
        """The part that is taken, in rows and columns of the tile."""
        return _moved(self.rows, -self.top), _moved(self.columns, -self.left)


def tiles(size: tuple[int, int], tile: tuple[int, int]) -> Iterator[Tile]:
    """Yield the tiles of a picture, row by row; one if the picture is not larger than a tile.

    Neighbors overlap by at least a quarter of their side. Each pixel is taken from one tile, in
    which it has at least an eighth of the side as context, except at the edge of the picture.
    Tiles start at multiples of 32 pixels (of a power of two if they are smaller than 256), so that
    the pixels of all tiles have the same place in the grid of a network's strides; the last ones
    may exceed the picture by less than that.

    Args:
      size: height and width of the picture.
      tile: height and width of the tiles.
    """
    rows, columns = (_spans(*sides) for sides in zip(size, tile, strict=True))
    for top, taken_rows in rows:
        for left, taken_columns in columns:
            yield Tile(top, left, taken_rows, taken_columns)


def cut(image: np.ndarray, tile: Tile, size: tuple[int, int], fill: Sequence[int]) -> np.ndarray:
    """Return a tile ``(*size, C)`` of an image ``(H, W, C)``, with ``fill`` (C,) beyond it."""
    part = image[tile.top : tile.top + size[0], tile.left : tile.left + size[1]]
    if part.shape[:2] == tuple(size):
        return part
    filled = np.empty((*size, image.shape[2]), image.dtype)
    filled[:] = fill
    filled[: part.shape[0], : part.shape[1]] = part
    return filled


def _spans(length: int, side: int) -> list[tuple[int, slice]]:
    """Return the start of each tile along an axis, and the part that is taken from it."""
    if length <= side:
        return [(0, slice(0, length))]
    margin = side // _PARTS
    alignment = min(_MAX_ALIGNMENT, 1 << max(0, margin.bit_length() - 1))
    step = max(1, (side - 2 * margin) // alignment * alignment)
    last = -(-(length - side) // alignment) * alignment
    starts = [*range(0, last, step), last]
    # Between neighbors: the middle of their overlap.
    inner = [(one + side + other) // 2 for one, other in pairwise(starts)]
    bounds = [0, *inner, length]
    return [(start, slice(*bounds[i : i + 2])) for i, start in enumerate(starts)]


def _moved(part: slice, offset: int) -> slice:
    return slice(part.start + offset, part.stop + offset)
