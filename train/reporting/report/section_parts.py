"""What the report's sections on evaluations share, above all those of one and several classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax_resnet import schema
from train.reporting import html_page, rankings
from train.reporting.calibration.results import MEASURED, measured_lines
from train.reporting.charts import ranking, recall, reliability
from train.reporting.charts.panel import Panel
from train.reporting.classification_metrics import ReliabilityBin, wilson_interval
from train.reporting.report import evaluated_images
from train.runtime.formatting import format_percent

MIN_CHARTED = 10  # classes in a chart of their recall; of fewer the table is enough
_MAX_ROWS = 25  # of the table of classes

TEXT, COUNT = schema.text(10_000, any_path=True), schema.integer()
SHARE = schema.number(0, 1 + 1e-6)  # means of ones may be rounded
# Of an evaluation of any task.
EVALUATION = {
    "dataset": TEXT,
    "split": TEXT,
    "weights": schema.text(choices=("ema", "raw")),
    "tta": schema.optional(TEXT),
    "examples": COUNT,
    "bad": schema.optional(COUNT),
    "step": COUNT,
    "loss": schema.optional(schema.number()),
}
FIELDS = {
    **EVALUATION,
    "top1": SHARE,
    "top1_interval": schema.sequence(SHARE, 2, 2),
    "baseline": schema.optional(SHARE),
    "expected_calibration_error": schema.optional(SHARE),
    "reliability": schema.sequence(
        schema.record(low=SHARE, high=SHARE, examples=COUNT, confidence=SHARE, accuracy=SHARE),
        1,
        100,
    ),
    "calibration": schema.optional(MEASURED),
    "rankings": schema.optional(rankings.SCHEMA),
    **evaluated_images.FIELDS,
}


def calibration(part: Mapping[str, Any]) -> list[str]:
    """Return the measured calibration, if there is one, the reliability diagram and its numbers."""
    bins = [ReliabilityBin(**one) for one in part["reliability"]]
    ece = part.get("expected_calibration_error") or 0.0
    measured = part.get("calibration")
    lines = measured_lines(measured) if measured else []
    panels = reliability.reliability_panels(bins, ece)
    return [*map(html_page.paragraph, lines), large_charts(panels), _bins(bins)]


def _bins(bins: Sequence[ReliabilityBin]) -> str:
    """Return a table of the bins with images, folded; nothing without any."""
    rows = [
        (
            percent_range((one.low, one.high)),
            f"{one.examples:,}",
            format_percent(one.confidence),
            with_interval(
                one.accuracy, wilson_interval(round(one.accuracy * one.examples), one.examples)
            ),
        )
        for one in bins
        if one.examples
    ]
    head = ("confidence", "images", "mean confidence", "accuracy (95 % interval)")
    table = html_page.table(head, rows, "bins of the reliability diagram")
    return html_page.folded("Numbers of the bins", table) if rows else ""


def ranking_curves(part: Mapping[str, Any]) -> list[str]:
    """Return the precision–recall and ROC curves; nothing without any."""
    if not part.get("rankings"):
        return []
    charts = large_charts(ranking.panels(part["rankings"]))
    text = html_page.paragraph(ranking.explanation(part["rankings"]), "weak")
    return ["<h3>Precision–recall and ROC curves</h3>", text, charts]


def recall_chart(classes: Sequence[Mapping[str, Any]]) -> str:
    """Return a chart of the recall of all classes with images; nothing for a few."""
    present = [one for one in classes if one["examples"] and one["recall_interval"] is not None]
    if len(present) < MIN_CHARTED:
        return ""
    recalls = [(one["name"], one["recall"], one["recall_interval"]) for one in present]
    return large_charts([recall.recall_panel(recalls)])


def large_charts(panels: Sequence[Panel]) -> str:
    """Return charts that are larger than usual."""
    return f'<div class="large">{html_page.charts(panels)}</div>'


def class_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], label: str, others: str
) -> list[str]:
    """Return a table of the first classes, and one of the others, folded.

    Args:
      head: titles of the columns.
      rows: a row per class, in order.
      label: what the first table shows.
      others: what the other one shows.
    """
    shown = [html_page.table(head, rows[:_MAX_ROWS], label)]
    if len(rows) > _MAX_ROWS:
        rest = html_page.table(head, rows[_MAX_ROWS:], others)
        shown.append(html_page.folded(f"{len(rows) - _MAX_ROWS:,} more classes", rest))
    return shown


def percent(share: float | None, decimals: int = 1) -> str:
    """Return a share as text; a dash for an unknown one."""
    return "–" if share is None else format_percent(share, decimals)


def percent_range(interval: Sequence[float] | None) -> str:
    """Return an interval of shares as text; a dash for an unknown one."""
    return "–" if interval is None else " to ".join(map(format_percent, interval))


def with_interval(share: float | None, interval: Sequence[float] | None) -> str:
    """Return a share and its interval as text: ``"97.3 % (85.8–99.5 %)"``."""
    if share is None or interval is None:
        return percent(share)
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{format_percent(share)} ({low}–{high} %)"
