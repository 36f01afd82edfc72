"""The section of ``report.html`` on commands, sessions and versions of the software."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from train.engine.profiling import FOLDER as PROFILE
from train.engine.profiling import describe_steps
from train.reporting import html_page


def section(workdir: str, config: Any, sessions: Sequence[dict[str, Any]]) -> str:
    """Return the HTML of the section."""
    return html_page.section(
        "Environment", *_environment(workdir, sessions), _profile(workdir, config)
    )


def _environment(workdir: str, sessions: Sequence[dict[str, Any]]) -> list[str]:
    train = next((s["command"] for s in sessions if s["command"]), None)
    if train is None:
        train = shlex.join(["python", "-m", "train.main", "--workdir", workdir, "--config", "…"])
    path = shlex.quote(workdir)
    commands = (
        f"{train}\npython -m train.evaluate --workdir {path}\n"
        f"python -m train.predict --workdir {path} IMAGE"
    )
    rows = []
    for one in sessions:
        git = one["git"] or {"revision": "–", "changed": False}
        revision = git["revision"][:12] + " + changes" * git["changed"]
        devices = "{devices} × {device_kind} ({platform}), {processes} process".format_map(one)
        devices += "es" * (one["processes"] > 1)
        rows.append((one["time"], one["step"], devices, revision, one["xla_flags"]))
    head = ("started (UTC)", "at step", "devices", "revision", "XLA_FLAGS")
    table, versions = html_page.paragraph("none"), ""
    if sessions:
        libraries = list(sessions[-1]["versions"].items())
        versions = html_page.table(("library", "version"), libraries, "library versions")
        versions = html_page.folded("Library versions", versions)
        table = html_page.table(head, rows, "sessions")
    commands = f"<pre>{html_page.escape(commands)}</pre>"
    return ["<h3>Commands</h3>", commands, "<h3>Sessions</h3>", table, versions]


def _profile(workdir: str, config: Any) -> str:
    """Return where the profile of some steps is; nothing without one."""
    folder = os.path.join(workdir, PROFILE)
    if not config.log.profile_steps or not os.path.isdir(folder):
        return ""
    what = describe_steps(config.log.profile_steps)
    return html_page.paragraph(f"jax.profiler trace of {what}: {folder}")
