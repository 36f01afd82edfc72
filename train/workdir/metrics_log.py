"""What a run tells: console lines or a progress bar, metrics.jsonl, TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import tqdm
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from train.runtime import distributed as processes
from train.runtime.errors import RunError, discard_output, warn
from train.runtime.files import write_atomically, writing

FILE = "metrics.jsonl"


class Console:
    """A progress bar on a terminal; elsewhere a line every two seconds and an evaluation.

    Of several processes only the first one's is ``heard``; what others warn of is, all the same.
    """

    SECONDS_BETWEEN_LINES = 2.0

    def __init__(self, num_steps: int, heard: bool = True):
        self.start, self.num_steps, self.heard = 0, num_steps, heard
        self.began = time.monotonic()
        self.told = 0.0
        self.bar: tqdm.tqdm | None = None
        self._unfinished = False  # whether a line still waits for its end

    def say(self, text: str) -> None:
        """One line for the reader, above the bar if there is one."""
        if self.heard:
            self._finish_line()
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that asks for attention."""
        if self.heard:
            self.say(f"warning: {text}")
        else:
            self._print(f"warning of process {processes.place()[0]}: {text}")

    def compiling(self) -> None:
        """The first step is about to start, and takes longer than all others."""
        if self.heard:
            # Of several processes each may end at any moment, by a thread of JAX's, with a line.
            self._unfinished = processes.count() == 1
            self._print("compiling…", end="" if self._unfinished else "\n")
        self.began = time.monotonic()

    def compiled(self) -> None:
        """The first step is done."""
        if self.heard:
            start, self._unfinished = " " if self._unfinished else "compiling… ", False
            self._print(f"{start}done in {time.monotonic() - self.began:.1f} s")

    def start_clock(self, step: int) -> None:
        """From ``step`` on steps are timed."""
        self.began, self.start = time.monotonic(), step
        if self.heard and sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            self.bar = tqdm.tqdm(
                total=self.num_steps,
                initial=step,
                unit="step",
                dynamic_ncols=width > 0,
                ncols=None if width else 80,  # terminals without a size say 0
            )

    def progress(self, row: dict[str, float]) -> None:
        """Shows a row of metrics and the time left for the whole run."""
        if not self.heard:
            return
        step = row["step"]
        facts = {
            "epoch": f"{row['epoch']:.1f}",
            "loss": f"{row['train/loss']:.4g}",
            "top1": f"{row['train/top1']:.1%}",
        }
        if "eval/top1" in row:
            facts["eval top1"] = f"{row['eval/top1']:.2%}"
        if "images_per_second" in row:
            facts["images/s"] = f"{row['images_per_second']:,.0f}"
        if "flops_share" in row:
            facts["of peak FLOP/s"] = f"{row['flops_share']:.1%}"
        line = ", ".join(f"{name} {value}" for name, value in facts.items())
        line = f"step {step}/{self.num_steps}: {line}"
        if self.bar is not None:
            if "eval/top1" in row:
                self.say(line)  # to stay when the bar moves on
            self.bar.set_postfix(facts, refresh=False)
            self.bar.update(step - self.bar.n)
            return
        now = time.monotonic()
        if now - self.told < self.SECONDS_BETWEEN_LINES and "eval/top1" not in row:
            return
        self.told = now
        done, left = step - self.start, self.num_steps - step
        eta = f", {clock((now - self.began) / done * left)} left" if done and left else ""
        self.say(line + eta)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_) -> None:
        """Ends the bar, or a line that an error cut short."""
        self._finish_line()
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _finish_line(self) -> None:
        if self._unfinished:
            self._print()
            self._unfinished = False

    def _print(self, text: str = "", end: str = "\n") -> None:
        """Who reads may go, or the file's disk be full; the run has more to lose, and goes on."""
        try:
            if self.bar is not None:
                self.bar.write(text, end=end)
            else:
                print(text, end=end)
            sys.stdout.flush()
        except OSError as error:
            discard_output()
            warn(f"no output any more ({error.strerror}): the run goes on, and {FILE} tells of it")


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


def clock(seconds: float) -> str:
    """A time for people: ``"3:07"``, ``"1:03:07"``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
