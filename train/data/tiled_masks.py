"""Pictures with masks in overlapping tiles, for evaluation at their own size."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from flax_resnet.decoding import ImageDecodeError, warn_once
from flax_resnet.dense.tiling import Tile, cut, tiles
from flax_resnet.images.pixels import RGB, PixelFormat
from train.data.masks import IGNORED, MaskSource
from train.data.record_labels import THREADS

_last = threading.local()  # the picture whose tiles a thread reads one after the other


@dataclass(frozen=True)
class TiledMasks(MaskSource):
    """The tiles of all pictures of a source, as records.

    In the mask of a tile, the pixels that are taken from another one are ignored, so that those of
    all tiles are the pixels of the picture, each once. A picture that fits into a tile is one
    record, unchanged. Of a picture that cannot be decoded, the first tile cannot, and the others
    are ignored.

    Attributes:
      pictures: the pictures.
      places: for each record the number of its picture and, if that is larger than a tile, the
        place of the tile.
      tile_size: height and width of a tile.
      fill: values beyond the picture ``(C,)``.
    """

    pictures: MaskSource = field(kw_only=True)
    places: Sequence[tuple[int, Tile | None]] = field(kw_only=True)
    tile_size: tuple[int, int] = field(kw_only=True)
    fill: tuple[int, ...] = field(kw_only=True)

    def decode(
        self,
        index: int,
        warn: Callable[[str, str], None] = warn_once,
        pixels: PixelFormat = RGB,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of a tile ``(H, W, C)`` and their classes, uint8 ``(H, W)``.

        Raises:
          ImageDecodeError: it is the first tile of a picture that cannot be decoded.
        """
        number, tile = self.places[index]
        if tile is None:
            return self.pictures.decode(number, warn, pixels)
        classes = np.full(self.tile_size, IGNORED, np.uint8)
        try:
            picture, mask = self._picture(number, warn, pixels)
        except ImageDecodeError:
            if tile.top == tile.left == 0:
                raise
            empty = np.empty((*self.tile_size, pixels.channels), pixels.dtype)
            empty[:] = self.fill
            return empty, classes
        classes[tile.center] = mask[tile.rows, tile.columns]
        return cut(picture, tile, self.tile_size, self.fill), classes

    def _picture(self, number: int, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        known = getattr(_last, "picture", None)
        if known is None or known[0] is not self or known[1] != number:
            _last.picture = known = self, number, self.pictures.decode(number, *arguments)
        return known[2]

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of a record."""
        number, tile = self.places[index]
        return self.pictures.size(number) if tile is None else self.tile_size

    def record_name(self, index: int) -> str:
        """Return the name of the picture of a record."""
        return self.pictures.record_name(self.places[index][0])


def tile_pictures(source: MaskSource, size: tuple[int, int], fill: tuple[int, ...]) -> TiledMasks:
    """Return the tiles of the pictures of a source; the sizes of all masks are read.

    Args:
      source: the pictures.
      size: height and width of a tile.
      fill: values beyond the pictures ``(C,)``.
    """

    def places(number: int) -> list[tuple[int, Tile | None]]:
        try:
            picture = source.size(number)
        except (OSError, ImageDecodeError):  # it counts as corrupt when it is decoded
            return [(number, None)]
        if all(side <= limit for side, limit in zip(picture, size, strict=True)):
            return [(number, None)]
        return [(number, tile) for tile in tiles(picture, size)]

    with ThreadPoolExecutor(THREADS) as pool:
        found = [place for some in pool.map(places, range(len(source))) for place in some]
    of_records = {"names": None, "groups": None, "weights": None, "skipped": {}, "parts": ()}
    shared = {one.name: getattr(source, one.name) for one in fields(MaskSource)}
    shared |= of_records | {"records": found}
    return TiledMasks(**shared, pictures=source, places=found, tile_size=tuple(size), fill=fill)
