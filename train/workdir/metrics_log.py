"""The metrics of a run on disk: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

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


class MetricsWriter:
    """Appends rows to ``metrics.jsonl`` and TensorBoard, both from ``start`` on.

    Rows of later steps, which a run that died wrote after its last checkpoint, are taken
    out: those steps will be done again.
    """

    def __init__(self, workdir: str, start: int):
        self._path = path = os.path.join(workdir, FILE)
        kept = [row for row in read_rows(workdir) if row["step"] <= start] if start else []
        with writing(path):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = open(path, "a", encoding="utf-8")
            self._events = Events(os.path.join(workdir, "tensorboard"), start + 1)

    def write(self, row: dict[str, float]) -> None:
        """Writes ``{"step": n, name: value, …}``."""
        with writing(self._path):
            self._file.write(to_json(row) + "\n")
            self._file.flush()
            self._events.write(row)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_) -> None:
        """Lets go of the files."""
        with contextlib.suppress(OSError):  # whatever did not reach the disk was told before
            self._file.close()
        with contextlib.suppress(OSError):
            self._events.close()


class Events:
    """TensorBoard's events, written at once: tensorboardX's own writer has a thread, and where
    that dies, as on a full disk, whoever adds to its queue waits for ever.

    Those of ``first`` and later steps that are there already are told to be void.
    """

    def __init__(self, folder: str, first: int):
        os.makedirs(folder, exist_ok=True)
        self._writer = EventsWriter(os.path.join(folder, "events"))
        self._write(file_version="brain.Event:2", step=first)
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._write(session_log=start, step=first)

    def write(self, row: dict[str, float]) -> None:
        """Writes a row's finite numbers under their names."""
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self._write(summary=scalar(name, value), step=row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))


def to_json(row: dict[str, Any]) -> str:
    """A row as one line; what is not finite, which JSON cannot say, becomes null."""
    return json.dumps(finite(row), allow_nan=False)


def finite(content: Any) -> Any:
    """The content with None for each number that is not finite, which JSON cannot say."""
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def read_rows(workdir: str) -> list[dict[str, float | None]]:
    """The rows of ``metrics.jsonl``; lines that are none, such as one cut short, are left out,
    and what is no finite number is None.

    No rows where there is no such file; RunError where it cannot be read.
    """
    rows = []
    try:
        with open(os.path.join(workdir, FILE), encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    rows.append({name: _number(value) for name, value in row.items()})
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"cannot read {os.path.join(workdir, FILE)}: {error.strerror}") from error
    return rows


def evaluated_rows(rows: Sequence[dict[str, float | None]]) -> list[dict[str, float | None]]:
    """The rows that have an evaluation."""
    return [row for row in rows if row.get("eval/top1") is not None]


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
