"""Tables in CSV and Parquet files, as columns of text."""

import csv
import io
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from flax_resnet.files import open_regular, read_file
from flax_resnet.text import error_reason, truncate
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import join_names

MAX_BYTES = 2**32
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}  # that are detected
_NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t"}
_PARQUET = b"PAR1"
_MAX_HEADER = 2**16  # characters in which the first line is looked for
_MAX_COLUMNS = 10_000

# Returns the name of the column for each purpose, of all names; raises UsageError if it cannot.
Choose = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class Table:
    """Some columns of a table.

    Attributes:
      path: the file.
      names: names of all columns.
      columns: for each purpose the texts of all rows; "" for missing values of Parquet files.
      lines: number of each row's first line, counted from 1; of Parquet files that of the row.
      unit: what these numbers count: ``"line"`` or ``"row"``.
      uneven: rows with another number of fields, which are in no column, as ``(line, fields)``.
    """

    path: str
    names: tuple[str, ...]
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    unit: str = "line"
    uneven: Sequence[tuple[int, int]] = ()

    def __len__(self) -> int:
        return len(self.lines)


def read_table(
    path: str, delimiter: str, choose: Choose, flags: str = "--config.dataset."
) -> Table:
    """Read some columns of a CSV or Parquet file; the content decides which of the two it is.

    Args:
      path: the file. CSV must be UTF-8, with or without a byte order mark, and name the columns
        in its first line; fields may be quoted as Python's csv module does it.
      delimiter: a character, or ``"tab"``; "": detected from ``DELIMITERS``.
      choose: chooses the columns.
      flags: what precedes ``delimiter=CHARACTER`` on the command line.

    Raises:
      UsageError: ``choose`` does, or the delimiter cannot be detected.
      RunError: the file cannot be read, or is no such table.
    """
    try:
        with open_regular(path) as file:
            is_parquet = file.read(len(_PARQUET)) == _PARQUET
        if is_parquet:
            return _read_parquet(path, choose)
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise RunError(f"cannot read the table {path!r}: {error.strerror or error}") from error
    text = _decode(content, path)
    if not text.strip():
        raise RunError(f"the table {path!r} is empty")
    delimiter = _NAMED_DELIMITERS.get(delimiter, delimiter) or _detect(text, path, choose, flags)
    return _read_csv(text, path, delimiter, choose, flags)


def _decode(content: bytes, path: str) -> str:
    advice = "save it as UTF-8, for example as 'CSV UTF-8' in a spreadsheet program"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RunError(f"the table {path!r} is UTF-16; {advice}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RunError(f"line {line:,} of the table {path!r} is not UTF-8; {advice}") from None


def _reader(text: str, delimiter: str, strict: bool = True):
    """Return a csv reader; without ``strict`` a quotation mark may stay open."""
    lines = io.StringIO(text, newline="")
    skips = delimiter != " "  # "a.png, cat" is two fields without spaces
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=skips, strict=strict)


def _detect(text: str, path: str, choose: Choose, flags: str) -> str:
    """Return the delimiter with which the first line names the columns."""
    names = {d: _header(text[:_MAX_HEADER], d) for d in DELIMITERS}
    candidates = [d for d in DELIMITERS if len(names[d]) > 1] or [","]
    errors, working = {}, []
    for candidate in candidates:
        try:
            choose(names[candidate])
            working.append(candidate)
        except UsageError as error:
            errors[candidate] = error
    if len(working) == 1:
        return working[0]
    if len(candidates) == 1:
        raise errors[candidates[0]]
    listed = " or ".join(DELIMITERS[candidate] for candidate in working or candidates)
    first = truncate(text[:_MAX_HEADER].partition("\n")[0])
    raise UsageError(
        f"the columns of {path!r} may be separated by {listed}, by its first line {first!r}; choose"
        f" with {flags}delimiter=CHARACTER"
    )


def _header(text: str, delimiter: str) -> tuple[str, ...]:
    """Return the names of the columns."""
    try:
        return tuple(name.strip() for name in next(_reader(text, delimiter, strict=False), ()))
    except csv.Error:
        return ()


def _read_csv(text: str, path: str, delimiter: str, choose: Choose, flags: str) -> Table:
    try:
        reader = _reader(text, delimiter)
    except (TypeError, ValueError):
        raise UsageError(
            f"{flags}delimiter must be one character, or 'tab', not {delimiter!r}"
        ) from None
    lines, uneven, line = array("q"), [], 1
    try:
        names = tuple(name.strip() for name in next(reader))
        positions = _positions(names, choose, path)
        columns: dict[str, list[str]] = {purpose: [] for purpose in positions}
        fields = [(columns[purpose].append, at) for purpose, at in positions.items()]
        line = reader.line_num + 1
        for row in reader:
            if len(row) == len(names):
                for append, position in fields:
                    append(row[position])
                lines.append(line)
            elif row:  # not an empty line
                uneven.append((line, len(row)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RunError(
            f"cannot read {path!r}: line {line:,}: {error_reason(error)}; is a quotation mark not"
            " closed, or not doubled inside of a quoted field?"
        ) from error
    return Table(path, names, columns, lines, uneven=uneven)


def _positions(names: Sequence[str], choose: Choose, path: str) -> dict[str, int]:
    """Return the position of the column for each purpose."""
    if len(names) > _MAX_COLUMNS:
        raise RunError(f"the table {path!r} has {len(names):,} columns, more than {_MAX_COLUMNS:,}")
    chosen = dict(choose(names))
    if repeated := sorted({name for name in chosen.values() if names.count(name) > 1}):
        raise UsageError(f"{path!r} has several columns {join_names(list(map(repr, repeated)))}")
    return {purpose: names.index(name) for purpose, name in chosen.items()}


def import_pyarrow() -> ModuleType:
    """Return ``pyarrow`` with ``pyarrow.parquet``; raise RunError if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RunError(
            f"Parquet files need a package that is not installed ({error}); install it with:"
            " pip install 'flax-resnet[hf]'"
        ) from error
    return pyarrow


def _read_parquet(path: str, choose: Choose) -> Table:
    pyarrow = import_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            positions = _positions(names, choose, path)
            data = file.read(columns=[names[position] for position in positions.values()])
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise RunError(f"cannot read the table {path!r}: {error_reason(error)}") from error
    columns = {
        purpose: _texts(data.column(names[position]), names[position], path)
        for purpose, position in positions.items()
    }
    return Table(path, names, columns, range(1, data.num_rows + 1), unit="row")


def _texts(column, name: str, path: str) -> list[str]:
    """Return the values of a Parquet file's column as text."""
    import pyarrow

    try:
        values = column.cast(pyarrow.string()).to_pylist()
    except pyarrow.ArrowException:
        raise UsageError(
            f"the column {name!r} of {path!r} has values of type {truncate(column.type)}; it must"
            " have text or numbers"
        ) from None
    return ["" if value is None else value for value in values]
