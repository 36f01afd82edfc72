"""Images that cannot be decoded: counted, listed by name, and too many of them refused."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from flax_resnet.decoding import ImageDecodeError
from train.data.source import DataSource
from train.runtime.errors import RunError
from train.runtime.files import append_line
from train.runtime.formatting import one_line

FILE = "bad_records.txt"
_NAMED = 10  # how many are named to the reader


class BadRecord(NamedTuple):
    """A record that cannot be decoded."""

    index: int
    name: str
    reason: str


class Reader:
    """Decodes records of a source, and the next one in order in place of one that is bad.

    What stands in for a bad record follows from its number alone, so every reader of the
    data, and every run, sees the same images.
    """

    def __init__(self, source: DataSource, max_fraction: float):
        self.source = source
        # A single bad file must not end a run on a small folder.
        self.most = math.ceil(max_fraction * len(source))

    def read(self, index: int) -> tuple[np.ndarray, int, list[BadRecord]]:
        """uint8 RGB ``(H, W, 3)``, label, and the records from ``index`` on that were bad."""
        bad: list[BadRecord] = []
        while True:
            place = (index + len(bad)) % len(self.source)
            try:
                return *self.source.decoded(place), bad
            except ImageDecodeError as error:
                bad.append(BadRecord(place, self.source.name_of(place), str(error)))
                self.check(bad)
                if len(bad) == len(self.source):
                    raise RunError(
                        f"none of the {len(bad):,} images of {self.source.name}"
                        f" {self.source.split} can be decoded: {bad[0].name}: {error}"
                    ) from error

    def check(self, bad: Iterable[BadRecord]) -> None:
        """Raises RunError where these are more than may be."""
        bad = sorted(set(bad))
        if len(bad) <= self.most:
            return
        named = "; ".join(f"{one_line(record.name)}: {record.reason}" for record in bad[:_NAMED])
        raise RunError(
            f"at least {len(bad)} of the {len(self.source):,} images of {self.source.name}"
            f" {self.source.split} cannot be decoded, more than config.loader.max_corrupt_fraction"
            f" permits ({self.most}): {named}"
        )


class BadRecords:
    """The bad records of a run, as a file of lines ``split<TAB>record<TAB>name<TAB>reason``.

    Args:
      workdir: where the file ``bad_records.txt`` lies; None keeps no file.
      warn: is told of the first bad records of a split.
      process: which one this is; all but the first have files of their own.
    """

    def __init__(
        self,
        workdir: str | None = None,
        warn: Callable[[str], None] = lambda _: None,
        process: int = 0,
    ):
        name, ending = os.path.splitext(FILE)
        self._file = f"{name}.{process}{ending}" if process else FILE
        self._path = None if workdir is None else os.path.join(workdir, self._file)
        self._warn = warn
        self._found: dict[str, set[BadRecord]] = {}
        self._lock = threading.Lock()
        self._listed: set[str] = set()  # a run that continues finds them again
        if self._path is not None and os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                self._listed.update(file)

    def add(self, reader: Reader, records: Iterable[BadRecord]) -> None:
        """Takes what a reader found bad. Raises RunError where it is too much."""
        source = reader.source
        with self._lock:
            known = self._found.setdefault(source.split, set())
            for record in sorted(set(records) - known):
                known.add(record)
                self._write(source.split, record)
                if len(known) <= _NAMED:
                    name = one_line(record.name)
                    self._warn(f"{source.split} image {name} is left out: {record.reason}")
                elif len(known) == _NAMED + 1:
                    self._warn(f"more {source.split} images are left out; {self._file} lists them")
            reader.check(known)

    def _write(self, split: str, record: BadRecord) -> None:
        if self._path is None:
            return
        fields = (split, str(record.index), record.name, record.reason)
        line = "\t".join(" ".join(field.split()) for field in fields) + "\n"
        if line not in self._listed:
            self._listed.add(line)
            append_line(self._path, line.rstrip("\n"))
