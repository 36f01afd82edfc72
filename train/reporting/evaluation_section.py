"""The section of ``report.html`` on an evaluation, and its part of ``report.json``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.own_networks import has_maps
from flax_resnet.preprocessing import to_viewable
from flax_resnet.text import one_line
from train.config.registries import SPLIT_METRICS, parse_top_k
from train.engine.evaluation import Evaluated
from train.engine.predictions import output_names
from train.reporting import curves, evaluation_results, html_page, svg
from train.reporting.calibration.results import MEASURED, measured_lines
from train.reporting.cautions import cautions
from train.reporting.classification_metrics import (
    ClassificationMetrics,
    ClassMetrics,
    ReliabilityBin,
)
from train.reporting.evaluation_tiles import format_metric, title
from train.runtime.formatting import format_percent
from train.tasks.abstention import MAX_POINTS, AbstentionPoint
from train.workdir.metrics_log import finite

NUM_EXPLAINED = 8  # images with Grad-CAM maps, half of them mistakes if there are enough
PIXELATED_BELOW = 64  # pixels; smaller images are enlarged without smoothing
_MAX_ROWS = 25  # of the table of classes
_WITH_INTERVAL = ("95 % confidence interval", "precision", "95 % confidence interval")
_RANKING = ("AUROC", "average precision")

_text, _count = schema.text(10_000, any_path=True), schema.integer()
_share = schema.number(0, 1 + 1e-6)  # means of ones may be rounded
_interval = schema.sequence(_share, 2, 2)
_metric = schema.number(-1, 1 + 1e-6)
CELLS = schema.sequence(schema.record(image=html_page.data_uri, caption=_text), 0, 100)


def _class(**fields: Any) -> dict[str, Any]:
    if fields["examples"] and None in (fields["recall"], fields["recall_interval"]):
        raise ValueError("it has examples, but no recall")
    return fields


def _part(**fields: Any) -> dict[str, Any]:
    outputs, counts = fields["outputs"], fields["confusion"]
    if outputs < len(fields["classes"]) or (
        counts and {outputs} != {len(counts), *map(len, counts)}
    ):
        raise ValueError(f"its classes or confusion matrix do not fit its {outputs} outputs")
    return {name: value for name, value in fields.items() if value is not None}


_FIELDS = {
    "dataset": _text,
    "split": _text,
    "weights": schema.text(choices=("ema", "raw")),
    "tta": schema.optional(_text),
    "examples": _count,
    "bad": schema.optional(_count),
    "step": _count,
    "outputs": schema.integer(1, 10_000_000),
    "small": schema.boolean,
    "top1": _share,
    "top1_interval": _interval,
    "baseline": schema.optional(_share),
    **{name: schema.optional(_metric) for name in SPLIT_METRICS},
    **{
        f"{name}_interval": schema.optional(schema.sequence(_metric, 2, 2))
        for name in SPLIT_METRICS
    },
    "top_k": schema.optional(schema.mapping(schema.record(share=_share, interval=_interval))),
    "loss": schema.optional(schema.number()),
    "mean_confidence": schema.optional(_share),
    "expected_calibration_error": schema.optional(_share),
    "classes": schema.sequence(
        schema.record(
            _class,
            name=_text,
            examples=_count,
            recall=schema.optional(_share),
            recall_interval=schema.optional(_interval),
            precision=schema.optional(_share),
            f1=schema.optional(_share),
            auroc=schema.optional(_share),
            average_precision=schema.optional(_share),
            precision_interval=schema.optional(_interval),
        ),
        1,
        1_000_000,
    ),
    "reliability": schema.sequence(
        schema.record(low=_share, high=_share, examples=_count, confidence=_share, accuracy=_share),
        1,
        100,
    ),
    "abstention": schema.optional(
        schema.sequence(
            schema.record(confidence=_share, coverage=_share, accuracy=_share),
            1,
            MAX_POINTS,
        )
    ),
    "calibration": schema.optional(MEASURED),
    "confusion": schema.optional(
        schema.sequence(schema.sequence(_count, 0, svg.MAX_CELLS), 0, svg.MAX_CELLS)
    ),
    "heat_map": schema.optional(html_page.data_uri),
    "mistakes": schema.optional(CELLS),
    "explained": schema.optional(CELLS),
}
PART = schema.record(_part, **_FIELDS)


def build_part(evaluated: Evaluated, metrics: ClassificationMetrics) -> dict[str, Any]:
    """Return the content of :func:`section`, for JSON.

    Grad-CAM maps of some images are included if the evaluation has its variables.
    """
    predictions, loader = evaluated.predictions, evaluated.loader
    names = evaluation_results.output_labels(evaluated)
    part = evaluation_results.to_dict(evaluated, metrics)
    image_names = [mistake["image"] for mistake in part["most_confident_mistakes"]]
    part |= {"outputs": predictions.outputs, "small": max(loader.image_shape[:2]) < PIXELATED_BELOW}
    part["top_k"] = {
        name: {"share": part[name], "interval": part[f"{name}_interval"]}
        for name in sorted(filter(parse_top_k, evaluated.result), key=parse_top_k)
        if name != "top1"
    }
    _, heat_map = evaluation_results.confusion_cells(metrics.confusion)
    if heat_map:
        part["heat_map"] = heat_map
        part.pop("confusion", None)  # megabytes for a thousand classes

    def cells(indices: np.ndarray, images: np.ndarray) -> list[dict[str, str]]:
        captions = evaluation_results.prediction_captions(predictions, indices, names)
        return html_page.image_cells(images, captions)

    if len(metrics.mistakes):
        squares = to_viewable(loader.center_crops(predictions.record[metrics.mistakes]))
        part["mistakes"] = cells(metrics.mistakes, squares)
        for cell, name in zip(part["mistakes"], image_names, strict=True):
            cell["caption"] += f"\n{name}"  # to find it, and to correct its label
    if evaluated.variables is not None and has_maps(evaluated.model):
        indices = choose_explained(evaluated, metrics.mistakes)
        part["explained"] = cells(indices, gradcam_pairs(evaluated, indices))
    return finite({name: value for name, value in part.items() if name in _FIELDS})


def choose_explained(evaluated: Evaluated, mistakes: np.ndarray) -> np.ndarray:
    """Return indices into the predictions: the most confident mistakes and correct predictions.

    The correct ones are of as many classes as possible.
    """
    predictions = evaluated.predictions
    correct = np.flatnonzero(predictions.right)
    correct = correct[np.argsort(-predictions.confidence[correct], kind="stable")]
    _, first = np.unique(predictions.predicted[correct], return_index=True)
    first = np.sort(first)
    correct = np.concatenate([correct[first], np.delete(correct, first)])
    wrong = mistakes[: max(NUM_EXPLAINED // 2, NUM_EXPLAINED - len(correct))]
    return np.concatenate([wrong, correct[: NUM_EXPLAINED - len(wrong)]]).astype(int)


def gradcam_pairs(evaluated: Evaluated, indices: np.ndarray) -> np.ndarray:
    """Return images beside their Grad-CAM maps of the predicted class, ``(N, H, 2 W, 3)``."""
    from flax_resnet.gradcam import gradcam, overlay

    records = evaluated.predictions.record[indices]
    squares = evaluated.loader.center_crops(records)
    padded = np.resize(squares, (NUM_EXPLAINED, *squares.shape[1:]))  # one compiled shape
    classes = np.resize(evaluated.predictions.predicted[indices], NUM_EXPLAINED)
    images = evaluated.loader.preprocessing.normalize(padded)
    heats = np.asarray(gradcam(evaluated.model, evaluated.variables, images, classes))
    shown = to_viewable(squares)
    return np.stack(
        [np.hstack([i, overlay(i, heat)]) for i, heat in zip(shown, heats, strict=False)]
    )


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from the content of :func:`build_part`."""
    classes = part["classes"]
    low, high = (format_percent(end, 2) for end in part["top1_interval"])
    loss, ece = part.get("loss"), part.get("expected_calibration_error")
    facts = (
        f"{part['dataset']} {part['split']}:"
        f" {evaluation_results.description(part, part['weights'])}. Top-1 accuracy"
        f" {format_percent(part['top1'], 2)}, 95 % confidence interval (Wilson) {low} to {high},"
        f" baseline (share of the largest class) {_percent(part.get('baseline'), 2)};"
        f" loss {'–' if loss is None else f'{loss:.4g}'}; mean confidence"
        f" {_percent(part.get('mean_confidence'))}, expected calibration error (ECE)"
        f" {_percent(ece, 2)}."
    )
    names = output_names([one["name"] for one in classes], part["outputs"])
    matrix = svg.confusion_matrix(names, part.get("confusion", ()), part.get("heat_map", ""))
    bins = [ReliabilityBin(**one) for one in part["reliability"]]
    grids = {
        "explained": "Grad-CAM: image regions that support the prediction",
        "mistakes": "Most confident mistakes",
    }
    return html_page.section(
        f"Evaluation: {name}",
        html_page.paragraph(facts),
        *(html_page.paragraph(f"Warning: {text}.") for text in _cautions(part)),
        *_metrics(part),
        "<h3>Confusion matrix</h3>",
        html_page.scrolling(matrix, "confusion matrix"),
        "<h3>Per-class accuracy</h3>",
        *_classes(classes),
        "<h3>Calibration</h3>",
        *map(
            html_page.paragraph,
            measured_lines(part["calibration"]) if part.get("calibration") else (),
        ),
        html_page.charts(curves.reliability_panels(bins, ece or 0.0)),
        *_abstention(part.get("abstention", ())),
        *(
            f"<h3>{title}</h3>{html_page.image_grid(part[key], part['small'], key == 'explained')}"
            for key, title in grids.items()
            if part.get(key)
        ),
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
    chart = html_page.charts([curves.abstention_panel([AbstentionPoint(**p) for p in points])])
    return ["<h3>Abstention</h3>", html_page.paragraph(text), chart]


def _percent(share: float | None, decimals: int = 1) -> str:
    return "–" if share is None else format_percent(share, decimals)


def _range(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else " to ".join(map(format_percent, interval))


def _classes(classes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the classes with the lowest recall, and one of the others, folded."""
    present = sorted((c for c in classes if c["examples"]), key=lambda c: c["recall"])
    rows = [
        (
            one_line(one["name"]),
            format_percent(one["recall"]),
            _range(one["recall_interval"]),
            _percent(one["precision"]),
            _range(one.get("precision_interval")),
            _percent(one["f1"]),
            _percent(one["auroc"]),
            _percent(one["average_precision"]),
            f"{one['examples']:,}",
        )
        for one in present
    ]
    head = ("class", "recall", *_WITH_INTERVAL, "F1", *_RANKING, "images")
    shown = [html_page.table(head, rows[:_MAX_ROWS], "per-class accuracy, lowest recall first")]
    if len(rows) > _MAX_ROWS:
        rest = html_page.table(head, rows[_MAX_ROWS:], "per-class accuracy of the other classes")
        shown.append(html_page.folded(f"{len(rows) - _MAX_ROWS:,} more classes", rest))
    return shown
