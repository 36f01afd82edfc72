"""The log of images that cannot be decoded, and warnings of odd ones."""

import os
import threading
from collections.abc import Callable, Iterable

from flax_resnet.files import read_file
from flax_resnet.text import one_line
from train.data.reader import MAX_NAMED, CorruptRecord, Reader
from train.runtime.errors import RunError
from train.runtime.files import append_line

_MAX_BYTES = 2**26


class CorruptRecords:
    """The corrupt records of a run, in a file of lines ``split<TAB>record<TAB>name<TAB>reason``.

    Args:
      workdir: directory of the file ``corrupt_records.txt``; None for no file.
      warn: called with a message for each of the first corrupt records of a split.
      process: number of this process; all but process 0 write ``corrupt_records.N.txt``.
    """

    def __init__(
        self,
        workdir: str | None = None,
        warn: Callable[[str], None] = lambda _: None,
        process: int = 0,
    ):
        self._file = f"corrupt_records.{process}.txt" if process else "corrupt_records.txt"
        self._path = None if workdir is None else os.path.join(workdir, self._file)
        self._warn = warn
        self._by_split: dict[str, set[CorruptRecord]] = {}
        self._lock = threading.Lock()
        self._oddities: set[str] = set()
        self._lines: set[str] = set()  # a resumed run finds the same records again
        if self._path is not None and os.path.exists(self._path):
            try:
                content = read_file(self._path, _MAX_BYTES)
            except OSError as error:
                raise RunError(
                    f"cannot read {self._path}: {error.strerror}; move it out of the workdir"
                ) from error
            self._lines.update(content.decode("utf-8", "replace").split("\n"))

    def add(self, reader: Reader, records: Iterable[CorruptRecord]) -> None:
        """Add the corrupt records that ``reader`` replaced, and warn once of each kind of oddity.

        Raises:
          RunError: the split has too many corrupt records, or the file cannot be written.
        """
        split = reader.source.split
        with self._lock:
            for kind in reader.oddities.keys() - self._oddities:
                self._oddities.add(kind)
                self._warn(
                    f"{one_line(reader.oddities[kind])} (only the first such image is named)"
                )
            known = self._by_split.setdefault(split, set())
            for record in sorted(set(records) - known):
                known.add(record)
                self._write(split, record)
                if len(known) <= MAX_NAMED:
                    name = one_line(record.name)
                    self._warn(f"skipping corrupt {split} image {name}: {record.reason}")
                elif len(known) == MAX_NAMED + 1:
                    self._warn(f"skipping more corrupt {split} images, listed in {self._file}")
            reader.check(known)

    def _write(self, split: str, record: CorruptRecord) -> None:
        if self._path is None:
            return
        fields = (split, str(record.index), record.name, record.reason)
        line = "\t".join(" ".join(field.split()) for field in fields)
        if line not in self._lines:
            self._lines.add(line)
            append_line(self._path, line)
