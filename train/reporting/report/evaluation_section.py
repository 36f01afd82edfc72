"""The section of ``report.html`` on an evaluation, and its part of ``report.json``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.text import one_line
from train.config.registries import SPLIT_METRICS, parse_top_k
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results, html_page
from train.reporting.cautions import cautions
from train.reporting.charts import confusion_matrix, reliability
from train.reporting.classification_metrics import (
    ClassificationMetrics,
    ClassMetrics,
)
from train.reporting.metric_names import format_metric, title
from train.reporting.report import confusion_section, enlarge
from train.reporting.report.evaluated_images import image_parts, image_sections
from train.reporting.report.section_parts import (
    COUNT,
    FIELDS,
    SHARE,
    TEXT,
    calibration,
    class_table,
    percent,
    ranking_curves,
    recall_chart,
    with_interval,
)
from train.runtime.formatting import format_percent, pluralize
from train.tasks.abstention import MAX_POINTS, AbstentionPoint
from train.workdir.metrics_log import finite

_HEAD = (
    *("class", "images", "recall (95 % interval)", "precision (95 % interval)"),
    *("F1 (95 % interval)", "AUROC", "average precision"),
)

_interval = schema.sequence(SHARE, 2, 2)
_metric = schema.number(-1, 1 + 1e-6)


def _class(**fields: Any) -> dict[str, Any]:
    if fields["examples"] and None in (fields["recall"], fields["recall_interval"]):
        raise ValueError("it has examples, but no recall")
    return fields


def _part(**fields: Any) -> dict[str, Any]:
    confusion_section.check(fields)
    return {name: value for name, value in fields.items() if value is not None}


_FIELDS = {
    **FIELDS,
    "outputs": schema.integer(1, 10_000_000),
    **{name: schema.optional(_metric) for name in SPLIT_METRICS},
    **{
        f"{name}_interval": schema.optional(schema.sequence(_metric, 2, 2))
        for name in SPLIT_METRICS
    },
    "top_k": schema.optional(schema.mapping(schema.record(share=SHARE, interval=_interval))),
    "mean_confidence": schema.optional(SHARE),
    "classes": schema.sequence(
        schema.record(
            _class,
            name=TEXT,
            examples=COUNT,
            recall=schema.optional(SHARE),
            recall_interval=schema.optional(_interval),
            precision=schema.optional(SHARE),
            f1=schema.optional(SHARE),
            auroc=schema.optional(SHARE),
            average_precision=schema.optional(SHARE),
            precision_interval=schema.optional(_interval),
            f1_interval=schema.optional(_interval),
            predicted=schema.optional(COUNT),
        ),
        1,
        1_000_000,
    ),
    "abstention": schema.optional(
        schema.sequence(
            schema.record(confidence=SHARE, coverage=SHARE, accuracy=SHARE),
            1,
            MAX_POINTS,
        )
    ),
    **confusion_section.FIELDS,
}
PART = schema.record(_part, **_FIELDS)


def build_part(evaluated: Evaluated, metrics: ClassificationMetrics) -> dict[str, Any]:
    """Return the content of :func:`section`, for JSON."""
    predictions, names = evaluated.predictions, evaluation_results.output_labels(evaluated)
    part = evaluation_results.to_dict(evaluated, metrics)
    part["outputs"] = predictions.outputs
    part["top_k"] = {
        name: {"share": part[name], "interval": part[f"{name}_interval"]}
        for name in sorted(filter(parse_top_k, evaluated.result), key=parse_top_k)
        if name != "top1"
    }
    if len(names) > confusion_matrix.MAX_NUMBERED:
        part.pop("confusion", None)  # megabytes for a thousand classes
    part |= confusion_section.build(evaluation_results.confusions(evaluated, metrics))
    part["rankings"] = metrics.rankings()

    def captions(indices: np.ndarray) -> list[str]:
        return evaluation_results.prediction_captions(predictions, indices, names)

    part |= image_parts(evaluated, predictions.right, metrics.mistakes, captions)
    return finite({name: value for name, value in part.items() if name in _FIELDS})


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from the content of :func:`build_part`."""
    classes = part["classes"]
    low, high = (format_percent(end, 2) for end in part["top1_interval"])
    loss, ece = part.get("loss"), part.get("expected_calibration_error")
    facts = (
        f"{part['dataset']} {part['split']}:"
        f" {evaluation_results.description(part, part['weights'])}. Top-1 accuracy"
        f" {format_percent(part['top1'], 2)}, 95 % confidence interval (Wilson) {low} to {high},"
        f" baseline (share of the largest class) {percent(part.get('baseline'), 2)};"
        f" loss {'–' if loss is None else f'{loss:.4g}'}; mean confidence"
        f" {percent(part.get('mean_confidence'))}, expected calibration error (ECE)"
        f" {percent(ece, 2)}."
    )
    key = enlarge.make_key(name)
    return html_page.section(
        f"Evaluation: {name}",
        html_page.paragraph(facts),
        *(html_page.paragraph(f"Warning: {text}.") for text in _cautions(part)),
        *_metrics(part),
        *confusion_section.section(part, key),
        "<h3>Recall, precision and F1 of each class</h3>",
        *_classes(classes),
        recall_chart(classes),
        *ranking_curves(part),
        "<h3>Calibration</h3>",
        *calibration(part),
        *_abstention(part.get("abstention", ())),
        *image_sections(part, "predicted class", key),
    )


def _metrics(part: dict[str, Any]) -> list[str]:
    """Return a table of the metrics of all images together; nothing without any."""
    rows = [
        (title(name), format_percent(one["share"], 2), _format(one["interval"], name), "Wilson")
        for name, one in part.get("top_k", {}).items()
    ]
    for name in SPLIT_METRICS:
        if part.get(name) is not None:
            interval = part.get(f"{name}_interval")
            shown = (_format(interval, name), "bootstrap") if interval else ("–", "")
            rows.append((title(name), format_metric(name, part[name]), *shown))
    if not rows:
        return []
    head = ("metric", "value", "95 % confidence interval", "by")
    return ["<h3>Metrics</h3>", html_page.table(head, rows, "metrics of all images together")]


def _format(interval: Sequence[float], metric: str) -> str:
    return " to ".join(format_metric(metric, end) for end in interval)


def _cautions(part: dict[str, Any]) -> list[str]:
    """Return the cautions of an evaluation; none for one of an older version."""
    if part.get("baseline") is None:
        return []
    return cautions(part, [ClassMetrics(**one) for one in part["classes"]])


def _abstention(points: Sequence[dict[str, float]]) -> list[str]:
    """Return the abstention curve; nothing for an evaluation of an older version."""
    if not points:
        return []
    text = "Accuracy if the network answers only where it is most confident."
    chart = html_page.charts([reliability.abstention_panel([AbstentionPoint(**p) for p in points])])
    return ["<h3>Abstention</h3>", html_page.paragraph(text), chart]


def _classes(classes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the classes with the lowest recall, and one of the others, folded."""
    present = sorted((c for c in classes if c["examples"]), key=lambda c: c["recall"])
    rows = [
        (
            one_line(one["name"]),
            f"{one['examples']:,}",
            with_interval(one["recall"], one["recall_interval"]),
            with_interval(one["precision"], one.get("precision_interval")),
            with_interval(one["f1"], one.get("f1_interval")),
            percent(one["auroc"]),
            percent(one["average_precision"]),
        )
        for one in present
    ]
    absent = len(classes) - len(present)
    note = f"Without {pluralize(absent, 'class')} that no image has."
    return [
        html_page.paragraph(note) if absent else "",
        *class_table(_HEAD, rows, "classes, lowest recall first", "the other classes"),
    ]
