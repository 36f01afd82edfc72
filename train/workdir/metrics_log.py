"""The metrics of a run on disk: metrics.jsonl."""

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from flax_resnet import schema
from flax_resnet.files import open_regular, write_atomically
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.runtime.formatting import pluralize

FILE = "metrics.jsonl"
_MAX_ROWS, _MAX_BYTES = 5_000_000, 2**32  # of a file; they take a few gigabytes of memory
_MAX_LINE = 2**20  # bytes
_MAX_NAMES = 100  # of a row
_LARGEST = 1e39  # more than any float32
_NUMBERS = (int, float)  # by type: True is none
_step = schema.integer()


class MetricsLog(contextlib.AbstractContextManager):
    """Writer of rows of metrics to ``metrics.jsonl``.

    Rows after step ``start``, written by a run that died after its last checkpoint, are removed:
    those steps will be repeated.

    Args:
      workdir: the run's folder.
      start: the step from which the run continues.
      warn: as for :func:`read_rows`.

    Raises:
      RunError: a file cannot be read or written.
    """

    def __init__(self, workdir: str, start: int, warn: Callable[[str], None] = lambda _: None):
        self._path = path = os.path.join(workdir, FILE)
        kept = [row for row in read_rows(workdir, warn) if row["step"] <= start] if start else []
        with writing(path):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = open(path, "a", encoding="utf-8")

    def write(self, row: dict[str, float]) -> None:
        """Write ``{"step": n, name: value, …}``, and the time in seconds since 1970."""
        with writing(self._path):
            self._file.write(to_json(row | {"time": round(time.time(), 1)}) + "\n")
            self._file.flush()

    def __exit__(self, *_) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # failed writes were reported by write()
            self._file.close()


def to_json(row: dict[str, Any]) -> str:
    """Return a row as one line of JSON, with null for numbers that are not finite."""
    return json.dumps(finite(row), allow_nan=False)


def finite(content: Any) -> Any:
    """Replace numbers that are not finite, which JSON cannot represent, with None."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def read_rows(
    workdir: str, warn: Callable[[str], None] = lambda _: None
) -> list[dict[str, float | None]]:
    """Read the rows of ``metrics.jsonl``; return none if there is no such file.

    Invalid lines are skipped; values that are not finite numbers become None.

    Args:
      workdir: the run's folder.
      warn: receives a message if lines were skipped, other than a last one that a kill truncated.

    Raises:
      RunError: the file cannot be read.
    """
    path = os.path.join(workdir, FILE)
    try:
        return read_json_lines(path, _row, warn)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(schema.read_error(path, error)) from error


def read_json_lines(
    path: str, line_schema: schema.Schema, warn: Callable[[str], None]
) -> list[Any]:
    """Return the valid lines of a file of one JSON value per line, and warn of others.

    A last line without its end, whose writer was killed, is not counted.
    """
    values, skipped = [], 0
    with open_regular(path) as file:
        while line := file.readline(_MAX_LINE):
            rest = line
            while len(rest) == _MAX_LINE and not rest.endswith(b"\n"):  # of a longer line
                rest = file.readline(_MAX_LINE)
            try:
                values.append(schema.parse_json(line, line_schema))
            except schema.SchemaError:
                skipped += rest.endswith(b"\n")
            if len(values) > _MAX_ROWS or file.tell() > _MAX_BYTES:
                limits = f"More than {_MAX_ROWS:,} lines or {_MAX_BYTES:,} bytes"
                raise OSError(errno.EFBIG, limits, path)
    if skipped:
        warn(f"{path}: skipped {pluralize(skipped, 'damaged line')}")
    return values


def read_optional_lines(
    path: str, line_schema: schema.Schema, warn: Callable[[str], None]
) -> list[Any]:
    """Return :func:`read_json_lines`; none without the file, or, with a warning, if it fails."""
    try:
        return read_json_lines(path, line_schema, warn)
    except FileNotFoundError:
        pass
    except OSError as error:
        warn(schema.read_error(path, error))
    return []


def _row(value: Any, _: str) -> dict[str, float | None]:
    """Check a row, as a schema; written out, because a run may have a hundred thousand."""
    if not isinstance(value, dict) or len(value) > _MAX_NAMES:
        raise schema.SchemaError("not a row")
    row = {
        sys.intern(name): number
        if type(number) in _NUMBERS and -_LARGEST <= number <= _LARGEST
        else None
        for name, number in value.items()
    }
    if (row.get("epoch") or 0) < 0:
        row["epoch"] = None
    row["step"] = _step(value.get("step"), "step")
    return row


def has_metrics(row: dict[str, Any]) -> bool:
    """Return whether a row is more than a place in the run."""
    return not row.keys() <= {"step", "epoch"}


def evaluated_rows(rows: Sequence[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """Return the rows that have an evaluation."""
    return [
        row
        for row in rows
        if any(name.startswith("eval/") and value is not None for name, value in row.items())
    ]
