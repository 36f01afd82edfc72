"""One split of a data set, whatever keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data.decode import decode_rgb
from train.errors import RunError


@dataclass(frozen=True)
class Source:
    """One split: ``len(source)`` records; ``source[i]`` is ``(encoded image, label)``."""

    name: str
    split: str
    class_names: tuple[str, ...]
    records: Any  # random access to {image_key: bytes, label_key: int}
    image_key: str = "image"
    label_key: str = "label"

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        record = self.records[index]
        return record[self.image_key], int(record[self.label_key])

    def decoded(self, index: int) -> tuple[np.ndarray, int]:
        """Record ``index`` as uint8 RGB ``(H, W, 3)`` and label.

        Raises RunError, naming the record, where it cannot be decoded.
        """
        encoded, label = self[index]
        try:
            return decode_rgb(encoded), label
        except ValueError as error:
            raise RunError(f"record {index} of {self.name} {self.split}: {error}") from error
