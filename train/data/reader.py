"""Decoding of records, with the next record in place of a corrupt one."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from flax_resnet.images.pixels import RGB, PixelFormat
from flax_resnet.text import one_line
from train.data.source import DataSource
from train.runtime.errors import RunError

MAX_NAMED = 10  # corrupt records that messages name


class CorruptRecord(NamedTuple):
    """A record that cannot be decoded."""

    index: int
    name: str
    reason: str


class Reader:
    """Decodes the records of a source; the next one in order replaces a corrupt one.

    The replacement depends on the record's number only, so all readers and all runs use the
    same images.

    Attributes:
      oddities: for each kind of oddity, such as several pages, what was done with the first image.

    Args:
      source: the records.
      max_corrupt_fraction: fraction of them that may be corrupt, rounded up: one corrupt file
        must not end a run on a small folder.
      pixels: channels and bits of the images.
    """

    def __init__(self, source: DataSource, max_corrupt_fraction: float, pixels: PixelFormat = RGB):
        self.source = source
        self._pixels = pixels
        self.oddities: dict[str, str] = {}
        self.max_corrupt = math.ceil(max_corrupt_fraction * len(source))

    def read(self, index: int) -> tuple[np.ndarray, Any, list[CorruptRecord]]:
        """Return image and label of record ``index``, or of the next one that can be decoded.

        Returns:
          The image ``(H, W, C)``, its label, a number or a mask uint8 ``(H, W)``, and the corrupt
          records from ``index`` on that it replaces.

        Raises:
          RunError: too many records are corrupt.
        """
        corrupt: list[CorruptRecord] = []
        while True:
            candidate = (index + len(corrupt)) % len(self.source)
            try:
                warn = partial(self._note, candidate)
                return *self.source.decode(candidate, warn, self._pixels), corrupt
            except ImageDecodeError as error:
                name = self.source.record_name(candidate)
                corrupt.append(CorruptRecord(candidate, name, str(error)))
                self.check(corrupt)
                if len(corrupt) == len(self.source):
                    raise RunError(
                        f"none of the {len(corrupt):,} images of {self.source.name}"
                        f" {self.source.split} can be decoded: {corrupt[0].name}: {error}"
                    ) from error

    def _note(self, index: int, kind: str, text: str) -> None:
        if kind not in self.oddities:
            self.oddities[kind] = f"{self.source.record_name(index)}: {text}"

    def check(self, corrupt: Iterable[CorruptRecord]) -> None:
        """Raise RunError if more records are corrupt than ``max_corrupt``."""
        corrupt = sorted(set(corrupt))
        if len(corrupt) <= self.max_corrupt:
            return
        named = "; ".join(f"{one_line(r.name)}: {r.reason}" for r in corrupt[:MAX_NAMED])
        raise RunError(
            f"at least {len(corrupt)} of the {len(self.source):,} images of {self.source.name}"
            f" {self.source.split} cannot be decoded, more than config.loader.max_corrupt_fraction"
            f" permits ({self.max_corrupt}): {named}"
        )
