"""Several runs side by side: results, curves, and the keys that differ."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flax_resnet.files import write_atomically
from train.config.access import flatten
from train.config.keys import KEYS
from train.reporting import curves, html_page, svg
from train.reporting.run_report import state_of, value_text
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.workdir import run_files
from train.workdir.metrics_log import evaluated_rows, read_rows

_RESULTS = (  # key of metrics.jsonl, what it is, how it is told
    ("eval/top1", "top-1", "{:.2%}"),
    ("eval/top5", "top-5", "{:.2%}"),
    ("eval/loss", "loss", "{:.4f}"),
)


@dataclass
class RunSummary:
    """A run: ``values`` are its configuration's, ``name`` tells it from the others.

    ``remark`` says why it counts in no mean, such as that it has not finished; else it is empty.
    """

    path: str
    name: str
    values: dict[str, Any]
    rows: list[dict[str, float]]
    step: int
    remark: str

    @property
    def results(self) -> dict[str, float]:
        """The last evaluation."""
        evaluated = evaluated_rows(self.rows)
        return evaluated[-1] if evaluated else {}

    @property
    def best(self) -> float | None:
        """The best top-1 of all evaluations."""
        return max((row["eval/top1"] for row in evaluated_rows(self.rows)), default=None)

    @property
    def rate(self) -> float | None:
        """Images per second, the median."""
        rates = [row["images_per_second"] for row in self.rows if row.get("images_per_second")]
        return statistics.median(rates) if rates else None


def read(path: str) -> RunSummary:
    """Reads a run. Raises RunError where ``path`` holds none, or one without metrics."""
    values = flatten(run_files.read_config(path))
    rows = read_rows(path)
    if not rows:
        raise RunError(f"{path!r} has told nothing yet: its metrics.jsonl has no rows")
    step, total = state_of(rows, run_files.read_sessions(path))
    remark = ""
    if total is not None and step < total:
        remark = f"has not finished: step {step:,} of {total:,}"
    if not evaluated_rows(rows):
        remark = f"{remark or 'has'}{' and has' if remark else ''} never been evaluated"
    name = os.path.basename(os.path.abspath(path))
    return RunSummary(path, name, values, rows, step, remark)


def name_apart(runs: Sequence[RunSummary]) -> None:
    """Names runs by their whole paths where the folders' names are the same."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = run.path


def grouped(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Runs that learn the same but for their seed, together, in the order of the first ones."""
    groups: dict[tuple, list[RunSummary]] = {}
    for run in runs:
        same = tuple(
            (name, run.values[name])
            for name, key in KEYS.items()
            if not key.neutral and name != "seed"
        )
        groups.setdefault(same, []).append(run)
    return list(groups.values())


def remark_same_seeds(runs: Sequence[RunSummary]) -> None:
    """Leaves all but the first of finished runs that learn the same with the same seed, such as a
    copy, out of the means: it would pass for another seed.
    """
    for group in grouped(runs):
        first: dict[int, RunSummary] = {}
        for run in group:
            if not run.remark and first.setdefault(run.values["seed"], run) is not run:
                other = first[run.values["seed"]].name
                run.remark = f"has the configuration and seed of {other!r}, and counts in no mean"


def differences(runs: Sequence[RunSummary]) -> list[tuple[str, list[Any]]]:
    """Keys that are not the same in all runs, with the value of each; those that change what is
    learned come first.
    """
    found = [
        (key.neutral, name, [run.values[name] for run in runs])
        for name, key in KEYS.items()
        if len({run.values[name] for run in runs}) > 1
    ]
    return [(name, values) for _, name, values in sorted(found, key=lambda one: one[0])]


def over_seeds(group: Sequence[RunSummary]) -> dict[str, tuple[float, float, int]]:
    """Mean, sample deviation (n - 1) and number of each result, of runs that have finished.

    Empty where fewer than two have.
    """
    done = [run.results for run in group if not run.remark]
    found = {}
    for key, _, _ in _RESULTS:
        values = [results[key] for results in done if results.get(key) is not None]
        if len(values) > 1:
            found[key] = statistics.mean(values), statistics.stdev(values), len(values)
    return found


def results_table(runs: Sequence[RunSummary]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row a run."""
    keys = [result for result in _RESULTS if any(result[0] in run.results for run in runs)]
    head = ["run", "seed", "step", *(name for _, name, _ in keys), "best top-1", "images/s"]
    rows = [
        [
            run.name,
            str(run.values["seed"]),
            f"{run.step:,}" + (" *" if run.remark else ""),
            *(_told(run.results.get(key), form) for key, _, form in keys),
            _told(run.best, "{:.2%}"),
            _told(run.rate, "{:,.0f}"),
        ]
        for run in runs
    ]
    return head, rows


def seeds_table(groups: Sequence[Sequence[RunSummary]]) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row for each group of runs that differ in their seed only."""
    scored = [(group, over_seeds(group)) for group in groups]
    scored = [(group, found) for group, found in scored if found]
    keys = [result for result in _RESULTS if any(result[0] in found for _, found in scored)]
    rows = []
    for group, found in scored:
        cells = []
        for key, _, form in keys:
            mean, deviation, _ = found.get(key, (None, None, 0))
            cells.append("–" if mean is None else f"{form.format(mean)} ± {form.format(deviation)}")
        names = ", ".join(run.name for run in group)
        rows.append([names, str(max(n for _, _, n in found.values())), *cells])
    return ["runs", "finished", *(name for _, name, _ in keys)], rows


def _told(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def as_text(runs: Sequence[RunSummary]) -> str:
    """Tables for the terminal."""
    parts = [_aligned(*results_table(runs))]
    if any(run.remark for run in runs):
        parts.append("* not finished, never evaluated, or of a seed that is there already")
    head, rows = seeds_table(grouped(runs))
    if rows:
        parts += ["", "mean ± sample deviation over runs that differ in their seed only:"]
        parts.append(_aligned(head, rows))
    differ = differences(runs)
    if differ:
        rows = [[name, *(value_text(v) for v in values)] for name, values in differ]
        parts += ["", _aligned(["key", *(run.name for run in runs)], rows)]
    return "\n".join(parts)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write(output: str, runs: Sequence[RunSummary]) -> None:
    """Writes the page. Raises RunError where it cannot be written."""
    with writing(output):
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        write_atomically(output, page(runs))


def page(runs: Sequence[RunSummary]) -> str:
    """The HTML; runs of a group share a colour where there are groups."""
    groups = grouped(runs)
    ordered = [run for group in groups for run in group]
    if len(groups) == 1 or len(groups) == len(runs):
        colours = list(range(len(ordered)))
    else:
        colours = [i for i, group in enumerate(groups) for _ in group]
    panels = curves.of_runs([r.name for r in ordered], colours, [r.rows for r in ordered])
    figures = "".join(svg.figure(panel) for panel in panels)
    head, rows = seeds_table(groups)
    differ = [
        (f"{name}\n{KEYS[name].meaning}", *(value_text(value) for value in values))
        for name, values in differences(ordered)
    ]
    lacking = "".join(
        html_page.paragraph(f"* {run.name} {run.remark}.", "weak") for run in ordered if run.remark
    )
    title = f"{len(runs)} runs compared" if len(runs) > 1 else f"{runs[0].name}"
    return html_page.page(
        f"{title} – flax-resnet",
        [
            f"<h1>{html_page.escape(title)}</h1>",
            html_page.section(
                "Results", html_page.table(*results_table(ordered), "results"), lacking
            ),
            html_page.section(
                "Over seeds",
                html_page.paragraph(
                    "Mean ± sample deviation of the last evaluation, over finished runs that differ"
                    " in their seed only.",
                    "weak",
                ),
                html_page.table(head, rows, "means over seeds"),
            )
            if rows
            else "",
            html_page.section("Curves", f'<div class="charts">{figures}</div>' if figures else ""),
            html_page.section(
                "Configurations",
                html_page.table(["key", *(run.name for run in ordered)], differ, "keys that differ")
                if differ
                else html_page.paragraph("The same."),
            ),
        ],
    )
