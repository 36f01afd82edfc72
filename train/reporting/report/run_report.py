"""``report.html``: the content of a workdir as one page.

Most of it is in ``metrics.jsonl``, ``config.json``, ``run.json`` and ``sessions.jsonl``. The rest
is in ``report.json``: findings on the data, training images and the results of evaluations.
"""

import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from flax_resnet import schema
from flax_resnet.files import write_atomically
from train.data.skipped import Finding
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results, html_page, task_reports
from train.reporting.plots import Pictures, Plots
from train.reporting.report import (
    configuration,
    data,
    environment,
    evaluated_images,
    learning_curves,
)
from train.reporting.report import pictures as report_pictures
from train.reporting.report.first_screen import first_screen
from train.reporting.report.sessions import list_sessions
from train.runtime.formatting import run_name
from train.workdir import run_files
from train.workdir.metrics_log import read_rows
from train.workdir.session_ends import read_ends

FILE, PARTS = "report.html", "report.json"
NUM_SAMPLES = 24


def _parts(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


_text = schema.text(10**6, any_path=True)
_FINDING = schema.record(
    kind=_text,
    count=schema.integer(),
    examples=schema.sequence(_text),
    text=_text,
    is_warning=schema.boolean,
)
_PARTS = schema.record(
    _parts,
    findings=schema.optional(schema.sequence(_FINDING)),
    samples=schema.optional(schema.record(small=schema.boolean, cells=report_pictures.CELLS)),
    evaluations=schema.optional(schema.mapping(task_reports.part)),
)


class LiveReport(Plots):
    """Charts and report of a run while it trains.

    They are updated from time to time, because drawing takes as long as one or many steps. Images
    of evaluations are drawn when the report is written, not for each evaluation.

    Args:
      workdir: the run.
      warn: receives warnings, each once.
      findings: what to show about the data.
    """

    SECONDS_BETWEEN_UPDATES = 20.0
    _MAX_SHARE = 0.02  # of the time of a run, which may have a million rows to read each time

    def __init__(self, workdir: str, warn: Callable[[str], None], findings: Sequence[Finding] = ()):
        super().__init__(workdir, functools.cache(warn))
        self._workdir = workdir
        self._findings = tuple(dataclasses.asdict(finding) for finding in findings)
        self._last_update, self._pause = time.monotonic(), self.SECONDS_BETWEEN_UPDATES
        self._get_evaluation: Callable[[], Evaluated] | None = None
        self._get_metrics: Callable[[], Any] | None = None
        self._samples: dict[str, Any] | None = None

    def draw_samples(self, take: Callable[[], Pictures]) -> None:
        """Draw the images that ``take`` returns, and write a first report."""

        def take_and_keep() -> Pictures:
            pictures = take()
            images, captions = pictures.images, pictures.captions
            cells = html_page.image_cells(images[:NUM_SAMPLES], captions[:NUM_SAMPLES])
            small = max(images.shape[1:3]) < evaluated_images.PIXELATED_BELOW
            self._samples = {"small": small, "cells": cells}
            return pictures

        super().draw_samples(take_and_keep)
        self.draw(FILE, lambda _: self._write_report())

    def set_evaluation(self, get: Callable[[], Evaluated], get_metrics: Callable[[], Any]) -> None:
        """Set the newest evaluation; both are called when the report is next written."""
        self._get_evaluation, self._get_metrics = get, get_metrics

    def update(self, force: bool) -> None:
        """Write ``curves.svg`` and the report if the last ones are old, or ``force``."""
        start = time.monotonic()
        if force or start - self._last_update > self._pause:
            self.draw("curves.svg", self._write_curves)
            self.draw(FILE, lambda _: self._write_report())
            self._last_update = time.monotonic()
            duration = self._last_update - start
            self._pause = max(self.SECONDS_BETWEEN_UPDATES, duration / self._MAX_SHARE)

    def _write_curves(self, path: str) -> None:
        config, rows = run_files.read_config(self._workdir), read_rows(self._workdir)
        write_atomically(path, learning_curves.svg_text(rows, config, run_name(self._workdir)))

    def _write_report(self) -> None:
        # Read each time: train.evaluate may have added an evaluation in the meantime.
        parts = before = read_parts(self._workdir, self._warn)
        if parts.get("findings", ()) != self._findings:
            parts = parts | {"findings": self._findings}
        if self._samples is not None:
            parts = parts | {"samples": self._samples}
        if self._get_evaluation is not None:
            parts = add_evaluation(parts, self._get_evaluation(), self._get_metrics())
        self._samples = self._get_evaluation = self._get_metrics = None
        if parts is not before:
            write_parts(self._workdir, parts)
            parts = read_parts(self._workdir, self._warn)  # as later reports have them
        write_report(self._workdir, parts=parts)


def write_report(
    workdir: str,
    folder: str = "",
    parts: dict[str, Any] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the report of a run.

    Args:
      workdir: the run.
      folder: folder of the report; default: the workdir.
      parts: content of ``report.json``; default: that file.
      warn: receives a message for each file with damaged lines.

    Raises:
      RunError: there is no run.
      OSError: the report cannot be written.
    """
    text = page(workdir, read_parts(workdir, warn) if parts is None else parts, warn)
    write_atomically(os.path.join(folder or workdir, FILE), text)


def read_parts(workdir: str, warn: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Return the content of ``report.json``; empty if it is missing.

    Args:
      workdir: the run.
      warn: receives a message if the file is corrupt; the result is empty then, too.
    """
    path = os.path.join(workdir, PARTS)
    try:
        return schema.read_json(path, _PARTS)
    except FileNotFoundError:
        pass
    except (OSError, schema.SchemaError) as error:
        warn(f"{schema.read_error(path, error)}; the report lacks what it held")
    return {}


def write_parts(workdir: str, parts: dict[str, Any]) -> None:
    """Write ``report.json``."""
    write_atomically(os.path.join(workdir, PARTS), json.dumps(parts) + "\n")


def add_evaluation(parts: dict[str, Any], evaluated: Evaluated, metrics: Any) -> dict[str, Any]:
    """Return the parts with an evaluation; it replaces one of the same data at any step."""
    folder = os.path.basename(evaluation_results.default_folder("", evaluated))
    name = folder.partition("_")[2]  # without the step
    new = {name: task_reports.task_report(evaluated).build_part(evaluated, metrics)}
    return parts | {"evaluations": parts.get("evaluations", {}) | new}


def page(workdir: str, parts: dict[str, Any], warn: Callable[[str], None] = lambda _: None) -> str:
    """Return the HTML of the report of a run.

    Raises:
      RunError: there is no run.
    """
    config = run_files.read_config(workdir)
    rows, starts = read_rows(workdir, warn), run_files.read_sessions(workdir, warn)
    info, ends = run_files.find_description(workdir), read_ends(workdir, warn)
    sessions = list_sessions(starts, ends, rows, info and info.early_end)
    name = run_name(workdir)
    evaluations = parts.get("evaluations", {})
    body = [
        *first_screen(workdir, name, config, rows, starts, sessions, parts),
        learning_curves.section(rows, config, name),
        *(task_reports.section(*item) for item in evaluations.items()),
        *data.sections(parts),
        configuration.section(config),
        environment.section(workdir, config, starts, sessions),
    ]
    return html_page.page(f"{name} – flax-resnet", body)
