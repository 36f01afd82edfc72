"""Comparison of several runs: results, curves, and the keys that differ."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import mean, stdev
from typing import Any

from flax_resnet.files import write_atomically
from flax_resnet.text import one_line
from train.compare.baselines import Baseline, compare_with_baseline
from train.compare.configurations import identity
from train.compare.cross_validation import CrossValidation, cross_validations
from train.config.access import flatten
from train.config.keys import KEYS
from train.config.registries import parse_top_k
from train.reporting import html_page
from train.reporting.charts import curves
from train.reporting.report.configuration import format_value
from train.reporting.report.evaluation_tiles import best_row, format_metric, title
from train.reporting.report.progress import progress, throughput
from train.runtime.errors import RunError, warn
from train.runtime.files import writing
from train.runtime.formatting import format_percent
from train.workdir import run_files
from train.workdir.metrics_log import evaluated_rows, read_rows

_percent = partial(format_percent, decimals=2)
_FOLDS = "Mean ± sample standard deviation over folds, and metrics of all held-out images together"
_Column = tuple[str, str, Callable[[float], str]]  # key, title, format
_RESULTS: tuple[_Column, ...] = (
    ("eval/map", title("map"), _percent),
    ("eval/map_baseline", f"{title('map')} baseline", _percent),
    ("eval/top1", "top-1", _percent),
    ("eval/baseline", "baseline", _percent),
    ("eval/top5", "top-5", _percent),
    ("eval/loss", "loss", "{:.4f}".format),
)


@dataclass
class RunSummary:
    """One run.

    Attributes:
      path: workdir.
      name: a name that no other run of the comparison has.
      values: configuration, as ``{"group.key": value}``.
      rows: rows of ``metrics.jsonl``.
      step: last logged step.
      remark: why the run is excluded from means, such as that it has not finished; else empty.
      images: images of the evaluation split; None if unknown.
    """

    path: str
    name: str
    values: dict[str, Any]
    rows: list[dict[str, float]]
    step: int
    remark: str
    images: int | None = None

    @cached_property
    def baseline(self) -> Baseline:
        """How the last evaluation compares with its baseline."""
        return compare_with_baseline(self.path, self.results, self.images, warn)

    @property
    def results(self) -> dict[str, float]:
        """The last evaluation."""
        evaluated = evaluated_rows(self.rows)
        return evaluated[-1] if evaluated else {}


def read(path: str) -> RunSummary:
    """Read a run.

    Raises:
      RunError: there is no run in ``path``, or it has no metrics.
    """
    values = flatten(run_files.read_config(path))
    rows = read_rows(path, warn)
    if not rows:
        raise RunError(f"{path!r} has not logged any metrics yet (metrics.jsonl is empty)")
    step, total = progress(rows, run_files.read_sessions(path, warn))
    remark = ""
    if total is not None and step < total and not run_files.ended_early(path):
        remark = f"has not finished: step {step:,} of {total:,}"
    if not evaluated_rows(rows):
        remark = f"{remark or 'has'}{' and has' if remark else ''} never been evaluated"
    name = os.path.basename(os.path.abspath(path))
    info = run_files.find_description(path)
    counts = list(info.images.values()) if info else []
    images = counts[-1] if counts else None  # of training and evaluation, in this order
    return RunSummary(path, name, values, rows, step, remark, images)


def disambiguate_names(runs: Sequence[RunSummary]) -> None:
    """Name runs by their whole paths if their folders have the same name."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = run.path


def grouped(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Return groups of runs that differ only in the seed and in keys without effect on results."""
    groups: dict[Hashable, list[RunSummary]] = {}
    for run in runs:
        groups.setdefault(identity(run.values, "seed"), []).append(run)
    return list(groups.values())


def mark_duplicates(runs: Sequence[RunSummary]) -> None:
    """Exclude from the means all but the first finished run of a configuration and seed.

    A copy would count as another seed.
    """
    for group in grouped(runs):
        first: dict[int, RunSummary] = {}
        for run in group:
            if run.remark:
                continue
            other = first.setdefault(run.values["seed"], run)
            if other is not run:
                run.remark = (
                    f"has the configuration and seed of {other.name!r} and is excluded from means"
                )


def differences(runs: Sequence[RunSummary]) -> list[tuple[str, list[Any]]]:
    """Return the keys that differ, with the value of each run; neutral keys come last."""
    values = {
        name: [run.values.get(name, key.default) for run in runs] for name, key in KEYS.items()
    }
    different = [item for item in values.items() if len(set(item[1])) > 1]
    return sorted(different, key=lambda item: KEYS[item[0]].neutral)


def over_seeds(group: Sequence[RunSummary]) -> dict[str, list[float]]:
    """Return the values of each result of finished runs, if there are at least two."""
    finished = [run.results for run in group if not run.remark]
    values = {
        key: [results[key] for results in finished if results.get(key) is not None]
        for key, _, _ in _result_columns(finished)
    }
    return {key: numbers for key, numbers in values.items() if len(numbers) > 1}


def _result_columns(results: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """Return the columns that some of the results have: the usual ones, and own metrics."""
    names = {name for one in results for name in one if name.startswith("eval/")}
    usual = [column for column in _RESULTS if column[0] in names]
    own = sorted(names - {name for name, _, _ in _RESULTS} - {"eval/bad"})
    return usual + [_own_column(name) for name in own]


def _own_column(name: str) -> _Column:
    metric = name.removeprefix("eval/")
    if parse_top_k(metric):
        return name, title(metric), _percent
    return name, metric, "{:.4f}".format


def results_table(runs: Sequence[RunSummary]) -> tuple[list[str], list[list[str]]]:
    """Return titles, and one row per run."""
    keys = _result_columns([run.results for run in runs])
    by = {_metric(run) for run in runs}
    best_title = f"best {title(*by)}" if len(by) == 1 else "best"
    head = ["run", "seed", "step", *(name for _, name, _ in keys), best_title, "images/s"]
    rows = []
    for run in runs:
        step = f"{run.step:,}" + (" *" if run.remark else "")
        results = [_cell(run.results.get(key), form) for key, _, form in keys]
        if not run.baseline.is_above:
            results[[key for key, _, _ in keys].index(run.baseline.metric)] += " !"
        more = _best_cell(run, len(by) > 1), _cell(throughput(run.rows), "{:,.0f}".format)
        rows.append([run.name, str(run.values["seed"]), step, *results, *more])
    return head, rows


def _metric(run: RunSummary) -> str:
    return run.values.get("eval.metric") or "top1"  # as in runs of older versions


def _best_cell(run: RunSummary, named: bool) -> str:
    """Return the best value of the run's ``eval.metric``, with its name if ``named``."""
    metric = _metric(run)
    best = best_row(evaluated_rows(run.rows), metric)
    value = _cell(best and best[f"eval/{metric}"], lambda value: format_metric(metric, value))
    return f"{value} ({title(metric)})" if named else value


def seeds_table(groups: Sequence[Sequence[RunSummary]]) -> tuple[list[str], list[list[str]]]:
    """Return titles, and one row per group of runs that differ only in the seed.

    Results are the mean and the sample standard deviation (n - 1).
    """
    scored = [(group, results) for group in groups if (results := over_seeds(group))]
    keys = _result_columns([results for _, results in scored])
    rows = []
    for group, results in scored:
        names = ", ".join(run.name for run in group)
        cells = [
            _cell(results.get(key), lambda v, form=form: f"{form(mean(v))} ± {form(stdev(v))}")
            for key, _, form in keys
        ]
        rows.append([names, str(max(map(len, results.values()))), *cells])
    return ["runs", "finished", *(name for _, name, _ in keys)], rows


def folds_table(
    validations: Sequence[CrossValidation],
) -> tuple[list[str], list[list[str]]]:
    """Return titles, and two rows per cross-validation.

    The first has the mean and the sample standard deviation (n - 1) over the folds, the second the
    metrics of all held-out images together.
    """
    keys = _result_columns([run.results for each in validations for run in each.runs])
    rows = []
    for each in validations:
        names = ", ".join(run.name for run in each.runs)
        over = over_seeds(each.runs)
        means = [
            _cell(over.get(key), lambda v, form=form: f"{form(mean(v))} ± {form(stdev(v))}")
            for key, _, form in keys
        ]
        rows.append([names, f"{len(each.runs)} of {each.folds}", *means])
        if each.pooled:
            pooled = [_cell(each.pooled.get(key), form) for key, _, form in keys]
            rows.append([f"all {each.images:,} held-out images", "pooled", *pooled])
    return ["runs", "folds", *(name for _, name, _ in keys)], rows


def _cell(value: Any, form: Callable[[Any], str]) -> str:
    return "–" if value is None else form(value)


def as_text(runs: Sequence[RunSummary]) -> str:
    """Return the tables for the console."""
    parts = [_aligned(*results_table(runs))]
    if any(run.remark for run in runs):
        parts.append("* not finished, never evaluated, or a duplicate of another run")
    cautions = (run.baseline.caution for run in runs if not run.baseline.is_above)
    parts += [f"! {text}" for text in dict.fromkeys(cautions)]
    head, rows = seeds_table(grouped(runs))
    if rows:
        parts += ["", "mean ± sample standard deviation over runs that differ only in the seed:"]
        parts.append(_aligned(head, rows))
    validations = cross_validations(runs)
    if validations:
        parts += ["", f"{_FOLDS}:", _aligned(*folds_table(validations))]
        parts += [f"not pooled: {each.remark}" for each in validations if each.remark]
    differ = differences(runs)
    if differ:
        rows = [[name, *map(format_value, values)] for name, values in differ]
        parts += ["", _aligned(["key", *(run.name for run in runs)], rows)]
    return "\n".join(parts)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[one_line(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write(output: str, runs: Sequence[RunSummary]) -> None:
    """Write the page.

    Raises:
      RunError: the file cannot be written.
    """
    with writing(output):
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        write_atomically(output, page(runs))


def page(runs: Sequence[RunSummary]) -> str:
    """Return the HTML. If there are groups of seeds, the runs of a group share a color."""
    groups = grouped(runs)
    ordered = [run for group in groups for run in group]
    colors = list(range(len(ordered)))
    if 1 < len(groups) < len(runs):
        colors = [i for i, group in enumerate(groups) for _ in group]
    panels = curves.comparison_panels([r.name for r in ordered], colors, [r.rows for r in ordered])
    head, rows = seeds_table(groups)
    seeds = ""
    if rows:
        explanation = (
            "Mean ± sample standard deviation of the last evaluation, over finished runs that"
            " differ only in the seed."
        )
        seeds = html_page.section(
            "Means over seeds",
            html_page.paragraph(explanation, "weak"),
            html_page.table(head, rows, "means over seeds"),
        )
    folds, validations = "", cross_validations(ordered)
    if validations:
        folds = html_page.section(
            "Cross-validation",
            html_page.paragraph(f"{_FOLDS}.", "weak"),
            html_page.table(*folds_table(validations), "cross-validation"),
            *(html_page.paragraph(f"Not pooled: {v.remark}.") for v in validations if v.remark),
        )
    differ = html_page.paragraph("none")
    if different := differences(ordered):
        rows = [(f"{k}\n{KEYS[k].meaning}", *map(format_value, v)) for k, v in different]
        head = ["key", *(run.name for run in ordered)]
        differ = html_page.table(head, rows, "keys that differ")
    remarks = "".join(
        html_page.paragraph(f"* {run.name} {run.remark}.", "weak") for run in ordered if run.remark
    )
    remarks += "".join(
        html_page.paragraph(f"! {run.name}: {run.baseline.caution}.", "weak")
        for run in ordered
        if not run.baseline.is_above
    )
    heading = f"Comparison of {len(runs)} runs" if len(runs) > 1 else runs[0].name
    body = [
        f"<h1>{html_page.escape(heading)}</h1>",
        html_page.section("Results", html_page.table(*results_table(ordered), "results"), remarks),
        seeds,
        folds,
        html_page.section("Learning curves", html_page.charts(panels)),
        html_page.section("Configuration differences", differ),
    ]
    return html_page.page(f"{heading} – flax-resnet", body)
