"""The section of ``report.html`` on commands, sessions and versions of the software."""

import itertools
import os
import shlex
from collections.abc import Sequence
from typing import Any

from train.engine.profiling import FOLDER as PROFILE
from train.engine.profiling import describe_steps
from train.reporting import html_page
from train.reporting.report.sessions import Session, timeline
from train.runtime.formatting import format_time, pluralize


def section(
    workdir: str, config: Any, starts: Sequence[dict[str, Any]], sessions: Sequence[Session]
) -> str:
    """Return the HTML of the section.

    Args:
      workdir: the run.
      config: its configuration.
      starts: content of ``sessions.jsonl``.
      sessions: the same with their ends.
    """
    commands = f"<pre>{html_page.escape(_commands(workdir, starts))}</pre>"
    return html_page.section(
        "Environment",
        html_page.folded("Commands: train or resume, evaluate, predict", commands),
        *_sessions(starts, sessions),
        _profile(workdir, config),
    )


def _commands(workdir: str, starts: Sequence[dict[str, Any]]) -> str:
    train = next((one["command"] for one in starts if one["command"]), None)
    if train is None:
        train = shlex.join(["python", "-m", "train.main", "--workdir", workdir, "--config", "…"])
    path = shlex.quote(workdir)
    return (
        f"{wrap_at_flags(train)}\n\npython -m train.evaluate --workdir {path}\n\n"
        f"python -m train.predict --workdir {path} IMAGE"
    )


def wrap_at_flags(command: str) -> str:
    """Return a shell command with each flag on a line of its own; it can still be pasted."""
    try:
        words = shlex.split(command)
    except ValueError:  # not of our own writing
        return command
    lines: list[list[str]] = [[]]
    for word, following in itertools.zip_longest(words, words[1:]):
        lines[-1].append(shlex.quote(word))
        if following and following.startswith("--"):
            lines.append([])
    return " \\\n    ".join(map(" ".join, lines))


def _sessions(starts: Sequence[dict[str, Any]], sessions: Sequence[Session]) -> list[str]:
    """Return the timeline of several sessions, and tables, folded."""
    if not starts:
        return []
    rows = []
    # Those without a valid time have no end.
    ends = sessions if len(sessions) == len(starts) else [None] * len(starts)
    for one, session in zip(starts, ends, strict=True):
        git = one["git"] or {"revision": "–", "changed": False}
        revision = git["revision"][:12] + " + changes" * git["changed"]
        devices = "{devices} × {device_kind} ({platform}), {processes} process".format_map(one)
        devices += "es" * (one["processes"] > 1)
        times = (one["time"], "–") if session is None else map(_time, (session.start, session.end))
        reason = session.reason if session else ""
        rows.append((*times, f"{one['step']:,}", reason, devices, revision, one["xla_flags"]))
    head = ("started", "ended", "from step", "reason of the end", "devices", "revision")
    table = html_page.table((*head, "XLA_FLAGS"), rows, "sessions")
    libraries = list(starts[-1]["versions"].items())
    versions = html_page.table(("library", "version"), libraries, "library versions")
    bars = timeline(sessions)
    return [
        f"<h3>Sessions</h3>{bars}" if bars else "",
        html_page.folded(f"{pluralize(len(rows), 'session')}: times, devices, revisions", table),
        html_page.folded("Library versions", versions),
    ]


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else format_time(seconds)


def _profile(workdir: str, config: Any) -> str:
    """Return where the profile of some steps is; nothing without one."""
    folder = os.path.join(workdir, PROFILE)
    if not config.log.profile_steps or not os.path.isdir(folder):
        return ""
    what = describe_steps(config.log.profile_steps)
    return html_page.paragraph(f"jax.profiler trace of {what}: {folder}")
