"""When and why the sessions of a run ended: ``session_ends.jsonl``.

A session that was killed leaves no line.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterator

from flax_resnet import schema
from flax_resnet.text import one_line, truncate
from train.runtime.errors import RunError
from train.runtime.files import append_line
from train.workdir.metrics_log import read_optional_lines

FILE = "session_ends.jsonl"
FINISHED = "finished"
_MAX_REASON = 300  # characters


def _end(time: str, reason: str) -> dict[str, str]:
    datetime.datetime.fromisoformat(time)  # a ValueError makes the line invalid
    return {"time": time, "reason": reason}


_END = schema.record(_end, time=schema.text(100), reason=schema.text(2 * _MAX_REASON))


@contextlib.contextmanager
def recorded_end(workdir: str) -> Iterator[None]:
    """Append when and why the block ends: :data:`FINISHED`, or the text of its exception."""
    reason = FINISHED
    try:
        yield
    except BaseException as error:
        reason = one_line(str(error)) or type(error).__name__
        raise
    finally:
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        end = {"time": time, "reason": truncate(reason, _MAX_REASON)}
        with contextlib.suppress(RunError):  # perhaps the disk is full, and that is the exception
            append_line(os.path.join(workdir, FILE), json.dumps(end))


def read_ends(workdir: str, warn: Callable[[str], None] = lambda _: None) -> list[dict[str, str]]:
    """Return ``{"time", "reason"}`` of all recorded ends, in order; none without the file.

    Args:
      workdir: the run.
      warn: receives a message if some cannot be read.
    """
    return read_optional_lines(os.path.join(workdir, FILE), _END, warn)
