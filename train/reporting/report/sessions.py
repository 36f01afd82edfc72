"""The sessions of a run: from when to when, which steps, and why they ended."""

import bisect
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from train.reporting import html_page
from train.reporting.report.progress import progress
from train.runtime.formatting import format_span, format_time, pluralize
from train.workdir.session_ends import FINISHED

UNKNOWN_END = "no end was recorded: killed, or the machine stopped"
_MAX_SECONDS = 1e11  # year 5138; the files may be of others
_MAX_SHOWN = 30  # in the timeline, the newest ones


class Session(NamedTuple):
    """One start of a run until its end; times are in seconds since 1970.

    Attributes:
      start: when it started.
      end: when it ended; of a killed one its last row of metrics, None without any.
      first_step: the step from which it started.
      last_step: the last one that still counts: the next session repeats those after it.
      reason: why it ended; empty if it may still run.
    """

    start: float
    end: float | None
    first_step: int
    last_step: int
    reason: str

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as that is known."""
        return 0.0 if self.end is None else self.end - self.start

    @property
    def was_interrupted(self) -> bool:
        """Whether it ended before the last step of the run."""
        return self.reason not in ("", FINISHED)


def list_sessions(
    starts: Sequence[Mapping[str, Any]],
    ends: Sequence[Mapping[str, str]],
    rows: Sequence[Mapping[str, Any]],
    early_end: str | None = None,
) -> list[Session]:
    """Return the sessions of a run in order; those without a valid time are left out.

    Args:
      starts: content of ``sessions.jsonl``.
      ends: content of ``session_ends.jsonl``.
      rows: rows of ``metrics.jsonl``.
      early_end: why the run ended before its last step; None if it did not.
    """
    known = [(time, start) for start in starts if (time := _seconds(start["time"])) is not None]
    times = [(_seconds(end["time"]), end["reason"]) for end in ends]
    recorded = [(time, reason) for time, reason in times if time is not None]
    logged = sorted(row["time"] for row in rows if 0 < (row.get("time") or 0) < _MAX_SECONDS)
    last_step, total = progress(rows, starts)
    sessions = []
    for index, (start, one) in enumerate(known):
        is_last = index == len(known) - 1
        following = float("inf") if is_last else known[index + 1][0]
        to_step = last_step if is_last else known[index + 1][1]["step"]
        # A session that was started within the same second has the next line of the file.
        end, reason = next(
            ((e, why) for e, why in recorded if start <= e <= following), (None, UNKNOWN_END)
        )
        if end is not None:
            recorded.remove((end, reason))
        else:
            seen = bisect.bisect_left(logged, following)
            end = logged[seen - 1] if seen and logged[seen - 1] >= start else None
            if is_last:
                reason = FINISHED if last_step == total else ""
        if is_last and reason in ("", FINISHED) and early_end:
            reason = early_end
        sessions.append(Session(start, end, one["step"], max(to_step, one["step"]), reason))
    return sessions


def _seconds(time: str) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(time)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        seconds = moment.timestamp()
        return seconds if 0 <= seconds < _MAX_SECONDS else None
    except (ValueError, OverflowError):
        return None


def describe_duration(sessions: Sequence[Session]) -> str:
    """Return how long a run took, without interruptions: ``"2 h 5 min in 3 sessions"``."""
    if all(one.end is None for one in sessions):
        return ""
    # The command on a finished run only evaluates it again.
    trained = [one for one in sessions if one.last_step > one.first_step or one.was_interrupted]
    sessions = trained or sessions
    seconds = sum(one.seconds for one in sessions)
    text = format_span(seconds)
    if len(sessions) > 1:
        text += f" in {pluralize(len(sessions), 'session')}"
        whole = (sessions[-1].end or 0) - sessions[0].start
        if format_span(whole) != format_span(seconds) and whole > 0:
            text += f", {format_span(whole)} from start to end"
    return text


def timeline(sessions: Sequence[Session]) -> str:
    """Return a bar for each session over the time since the first of them, as HTML."""
    shown = sessions[-_MAX_SHOWN:]
    if len(shown) < 2:
        return ""
    origin = min(one.start for one in shown)  # a clock may have been set back
    length = max(one.end or one.start for one in shown) - origin or 1.0
    items = []
    for one in shown:
        left = 100 * (one.start - origin) / length
        width = max(0.4, min(100 * one.seconds / length, 100 - left))
        left = min(left, 100 - width)
        kind = " cut" * one.was_interrupted
        text = f"{format_time(one.start)}: steps {one.first_step:,} to {one.last_step:,}"
        text += f", {format_span(one.seconds)}" if one.end is not None else ""
        text += f"; {one.reason}" if one.reason else ""
        items.append(
            f'<li>{html_page.escape(text)}<div class="track"><i class="range{kind}"'
            f' style="left:{left:.2f}%;width:{width:.2f}%"></i></div></li>'
        )
    first = len(sessions) - len(shown) + 1
    inside = "".join(items)
    return f'<ol class="timeline" start="{first}">{inside}</ol>'
