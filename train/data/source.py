"""One split of a data set, whatever keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data.decode import BadImage, decode_rgb


@dataclass(frozen=True)
class Source:
    """One split: ``len(source)`` records; ``source[i]`` is ``(encoded image, label)``.

    Safe to read from several threads, and picklable, for worker processes.

    Attributes:
      name: as in ``config.dataset.name``.
      split: as in ``config.dataset.train_split``.
      class_names: a label is an index into these.
      records: random access to ``{image_key: bytes, label_key: int, name_key: str}``.
      name_key: of a record's own name, such as its file's, where it has one.
      names: those names, where they are known without reading a record.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    records: Sequence[Mapping[str, Any]]
    image_key: str = "image"
    label_key: str = "label"
    name_key: str | None = None
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        record = self.records[index]
        return record[self.image_key], int(record[self.label_key])

    def decoded(self, index: int) -> tuple[np.ndarray, int]:
        """Record ``index`` as uint8 RGB ``(H, W, 3)`` and label.

        Raises BadImage where it cannot be decoded.
        """
        try:
            encoded, label = self[index]
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror or error}") from error
        return decode_rgb(encoded), label

    def name_of(self, index: int) -> str:
        """What to call a record in a list: its file, or its number."""
        if self.names is not None:
            return self.names[index]
        if self.name_key is None:
            return f"record {index}"
        name = self.records[index][self.name_key]
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
