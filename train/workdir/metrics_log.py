"""The metrics of a run on disk: metrics.jsonl and TensorBoard events."""

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from flax_resnet.files import write_atomically
from train.runtime.errors import RunError
from train.runtime.files import writing

FILE = "metrics.jsonl"


class MetricsLog(contextlib.AbstractContextManager):
    """Writer of rows of metrics to ``metrics.jsonl`` and TensorBoard.

    Rows after step ``start``, written by a run that died after its last checkpoint, are removed:
    those steps will be repeated.

    Raises:
      RunError: a file cannot be read or written.
    """

    def __init__(self, workdir: str, start: int):
        self._path = path = os.path.join(workdir, FILE)
        kept = [row for row in read_rows(workdir) if row["step"] <= start] if start else []
        with writing(path):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = open(path, "a", encoding="utf-8")
            self._events = Events(os.path.join(workdir, "tensorboard"), start + 1)

    def write(self, row: dict[str, float]) -> None:
        """Write ``{"step": n, name: value, …}``."""
        with writing(self._path):
            self._file.write(to_json(row) + "\n")
            self._file.flush()
            self._events.write(row)

    def __exit__(self, *_) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # failed writes were reported by write()
            self._file.close()
        with contextlib.suppress(OSError):
            self._events.close()


class Events:
    """TensorBoard events, written synchronously.

    The thread of tensorboardX's own writer may die, for example on a full disk, and then everyone
    who adds to its queue waits forever. Existing events of step ``first`` and later are
    invalidated.
    """

    def __init__(self, folder: str, first: int):
        os.makedirs(folder, exist_ok=True)
        self._writer = EventsWriter(os.path.join(folder, "events"))
        self._write(file_version="brain.Event:2", step=first)
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._write(session_log=start, step=first)

    def write(self, row: dict[str, float]) -> None:
        """Write the finite numbers of a row."""
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self._write(summary=scalar(name, value), step=row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))


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


def read_rows(workdir: str) -> list[dict[str, float | None]]:
    """Read the rows of ``metrics.jsonl``; return none if there is no such file.

    Invalid lines, for example truncated ones, are skipped; values that are not finite numbers
    become None.

    Raises:
      RunError: the file cannot be read.
    """
    path = os.path.join(workdir, FILE)
    try:
        rows = read_json_lines(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    return [
        {name: _number(value) for name, value in row.items()}
        for row in rows
        if isinstance(row.get("step"), int)
    ]


def read_json_lines(path: str) -> list[dict[str, Any]]:
    """Read the objects of a file of one JSON object per line; skip invalid lines."""
    rows = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # of a truncated line
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def evaluated_rows(rows: Sequence[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """Return the rows that have an evaluation."""
    return [row for row in rows if row.get("eval/top1") is not None]


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
