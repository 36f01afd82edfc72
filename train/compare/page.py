"""The page of a comparison."""

import os
from collections.abc import Sequence

from flax_resnet.files import write_atomically
from train.compare import charts, class_iou, grouping, tables
from train.compare.comparison import FOLDS, Comparison
from train.compare.pair.kinds import PAIR_KINDS
from train.compare.runs import RunSummary
from train.compare.tables import TextTable
from train.config.keys import KEYS
from train.reporting import html_page
from train.runtime.files import writing
from train.runtime.formatting import pluralize

_TALL = 15  # rows from which on a table scrolls


def write(output: str, comparison: Comparison) -> None:
    """Write the page.

    Raises:
      RunError: the file cannot be written.
    """
    with writing(output):
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        write_atomically(output, page(comparison))


def page(comparison: Comparison) -> str:
    """Return the HTML."""
    runs = comparison.runs
    heading = f"Comparison of {len(runs)} runs" if len(runs) > 1 else runs[0].name
    body = [
        f"<h1>{html_page.escape(heading)}</h1>",
        _results(comparison),
        _seeds(comparison),
        _folds(comparison),
        html_page.section(
            "Differences between two runs",
            *(PAIR_KINDS[found.kind].part(found) for found in comparison.differences),
            *(html_page.paragraph(text) for text in comparison.unpaired),
        ),
        html_page.section(
            "Metric by key", html_page.charts(charts.scatter_panels(comparison.cohorts))
        ),
        html_page.section(
            "Learning curves",
            _note(charts.explanation(comparison.groups)),
            html_page.charts(charts.curve_panels(comparison.cohorts, comparison.groups)),
        ),
        html_page.section("Configuration differences", _keys(runs)),
    ]
    return html_page.page(f"{heading} – flax-resnet", body)


def _note(text: str) -> str:
    return html_page.paragraph(text, "weak") if text else ""


def _results(comparison: Comparison) -> str:
    parts, several = [], len(comparison.cohorts) > 1
    if several:
        parts.append(html_page.paragraph(tables.APART))
    if text := grouping.describe_other_classes(comparison.runs):
        parts.append(html_page.paragraph(text))
    for cohort in comparison.cohorts:
        title = tables.cohort_title(cohort)
        parts.append(f"<h3>{html_page.escape(title)}</h3>")
        parts.append(_table(tables.results_table(cohort), title))
        parts += _classes(cohort, title)
    text = "The last evaluation of each run, the best one first and marked."
    if len(comparison.runs) > 1:
        parts.insert(0, html_page.paragraph(text, "weak"))
    return html_page.section("Results", *parts, *_remarks(comparison.runs))


def _classes(cohort: Sequence[RunSummary], title: str) -> list[str]:
    """Return the IoU of each class, of runs of segmentation; the first classes are not folded."""
    table = class_iou.iou_table(cohort)
    if table is None:
        return []
    label = f"{class_iou.TITLE}, {title}"
    shown, rest = table.rows[:_TALL], table.rows[_TALL:]
    parts = [f"<h4>{class_iou.TITLE}</h4>", html_page.table(table.head, shown, label)]
    if rest:
        more = pluralize(len(rest), "more class")
        parts.append(html_page.folded(more, html_page.table(table.head, rest, more)))
    note = class_iou.describe_omitted(cohort)
    return [*parts, *([_note(f"{note}.")] if note else [])]


def _remarks(runs: Sequence[RunSummary]) -> list[str]:
    remarks = [f"* {run.name} {run.remark}." for run in runs if run.remark]
    cautions: dict[str, list[str]] = {}
    for run in runs:
        if not run.baseline.is_above:
            cautions.setdefault(run.baseline.caution, []).append(run.name)
    remarks += [f"! {', '.join(names)}: {text}." for text, names in cautions.items()]
    return [html_page.paragraph(text, "weak") for text in remarks]


def _seeds(comparison: Comparison) -> str:
    table = tables.seeds_table(comparison.groups)
    if not table.rows:
        return ""
    text = (
        "Mean ± sample standard deviation of the last evaluation, over finished runs that differ"
        " only in the seed."
    )
    return html_page.section(
        "Means over seeds", html_page.paragraph(text, "weak"), _table(table, "means over seeds")
    )


def _folds(comparison: Comparison) -> str:
    validations = comparison.validations
    if not validations:
        return ""
    return html_page.section(
        "Cross-validation",
        html_page.paragraph(f"{FOLDS}.", "weak"),
        _table(tables.folds_table(validations), "cross-validation"),
        *(html_page.paragraph(f"Not pooled: {v.remark}.") for v in validations if v.remark),
    )


def _keys(runs: Sequence[RunSummary]) -> str:
    table = tables.keys_table(runs)
    if not table.rows:
        return html_page.paragraph("none")
    rows = [[f"{name}\n{KEYS[name].meaning}", *rest] for name, *rest in table.rows]
    return html_page.table(table.head, rows, "keys that differ", folds_notes=True)


def _table(table: TextTable, label: str) -> str:
    tall = len(table.rows) > _TALL
    return html_page.table(table.head, table.rows, label, table.marked, tall)
