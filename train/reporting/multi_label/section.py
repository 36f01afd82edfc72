"""The section of ``report.html`` on images with any number of classes, and its JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.own_networks import has_maps
from flax_resnet.preprocessing import to_viewable
from flax_resnet.text import one_line
from train.engine.evaluation import Evaluated
from train.reporting import curves, evaluation_results, html_page
from train.reporting.calibration.results import MEASURED, measured_lines
from train.reporting.classification_metrics import ReliabilityBin
from train.reporting.evaluation_section import (
    CELLS,
    PIXELATED_BELOW,
    choose_explained,
    gradcam_pairs,
)
from train.reporting.multi_label import results
from train.reporting.multi_label.metrics import LabelMetrics, MultiLabelEvaluation, cautions
from train.runtime.formatting import format_percent
from train.tasks.multi_label_metrics import MULTI_LABEL_METRICS
from train.workdir.metrics_log import finite

_MAX_ROWS = 25  # of the table of classes
_HEAD = (
    *("class", "average precision", "AUROC", "threshold", "recall", "95 % confidence interval"),
    *("precision", "F1", "images"),
)
_text, _count = schema.text(10_000, any_path=True), schema.integer()
_share = schema.number(0, 1 + 1e-6)  # means of ones may be rounded
_known_share = schema.optional(_share)
_interval = schema.sequence(schema.number(-1, 1 + 1e-6), 2, 2)


def _part(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


_FIELDS = {
    "task": schema.text(100),
    "dataset": _text,
    "split": _text,
    "weights": schema.text(choices=("ema", "raw")),
    "tta": schema.optional(_text),
    "examples": _count,
    "bad": schema.optional(_count),
    "step": _count,
    "small": schema.boolean,
    "top1": _share,
    "top1_interval": _interval,
    "map_interval": schema.optional(_interval),
    "auroc_macro_interval": schema.optional(_interval),
    **dict.fromkeys((*MULTI_LABEL_METRICS, "baseline", "map_baseline"), _known_share),
    "loss": schema.optional(schema.number()),
    "expected_calibration_error": _known_share,
    "thresholds": schema.optional(schema.mapping(_share, 1_000_000)),
    "classes": schema.sequence(
        schema.record(
            name=_text,
            examples=_count,
            average_precision=_known_share,
            auroc=_known_share,
            threshold=_share,
            recall=_known_share,
            recall_interval=schema.optional(_interval),
            precision=_known_share,
            f1=_known_share,
        ),
        1,
        1_000_000,
    ),
    "reliability": schema.sequence(
        schema.record(low=_share, high=_share, examples=_count, confidence=_share, accuracy=_share),
        1,
        100,
    ),
    "calibration": schema.optional(MEASURED),
    "mistakes": schema.optional(CELLS),
    "explained": schema.optional(CELLS),
}
PART = schema.record(_part, **_FIELDS)


def build_part(evaluated: Evaluated, evaluation: MultiLabelEvaluation) -> dict[str, Any]:
    """Return the content of :func:`section`, for JSON.

    Grad-CAM maps of some images are included if the evaluation has its variables.
    """
    loader, mistakes = evaluated.loader, evaluation.mistakes
    part = results.to_dict(evaluated, evaluation)
    image_names = [mistake["image"] for mistake in part["most_confident_mistakes"]]
    part["small"] = max(loader.image_shape[:2]) < PIXELATED_BELOW

    def cells(indices: np.ndarray, images: np.ndarray) -> list[dict[str, str]]:
        return html_page.image_cells(images, results.captions(evaluated, indices))

    if len(mistakes):
        squares = to_viewable(loader.center_crops(evaluated.predictions.record[mistakes]))
        part["mistakes"] = cells(mistakes, squares)
        for cell, name in zip(part["mistakes"], image_names, strict=True):
            cell["caption"] += f"\n{name}"  # to find it, and to correct its labels
    if evaluated.variables is not None and has_maps(evaluated.model):
        wrong = mistakes[~evaluated.predictions.right[mistakes]]
        indices = choose_explained(evaluated, wrong)
        part["explained"] = cells(indices, gradcam_pairs(evaluated, indices))
    return finite({name: value for name, value in part.items() if name in _FIELDS})


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from the content of :func:`build_part`."""
    bins = [ReliabilityBin(**one) for one in part["reliability"]]
    ece = part.get("expected_calibration_error") or 0.0
    warnings = cautions(part, _evaluation(part, bins, ece))
    grids = {
        "explained": "Grad-CAM: image regions that support the most probable class",
        "mistakes": "Most confident mistakes",
    }
    return html_page.section(
        f"Evaluation: {name}",
        html_page.paragraph(_facts(part, ece)),
        *(html_page.paragraph(f"Warning: {text}.") for text in warnings),
        "<h3>Classes</h3>",
        *_classes(part["classes"]),
        "<h3>Calibration</h3>",
        html_page.paragraph("Of the probabilities of all images and classes."),
        *map(
            html_page.paragraph,
            measured_lines(part["calibration"]) if part.get("calibration") else (),
        ),
        html_page.charts(curves.reliability_panels(bins, ece)),
        *(
            f"<h3>{title}</h3>{html_page.image_grid(part[key], part['small'], key == 'explained')}"
            for key, title in grids.items()
            if part.get(key)
        ),
    )


def _facts(part: dict[str, Any], ece: float) -> str:
    facts = (
        f"{part['dataset']} {part['split']}:"
        f" {evaluation_results.description(part, part['weights'])}."
    )
    if part.get("map") is not None:
        interval = ""
        if part.get("map_interval"):
            low, high = (format_percent(end, 2) for end in part["map_interval"])
            interval = f", 95 % confidence interval (bootstrap) {low} to {high}"
        facts += (
            f" Mean average precision (mAP) {format_percent(part['map'], 2)}{interval}; of a"
            " ranking at random"
            f" {format_percent(part['map_baseline'], 2)}; macro AUROC {part['auroc_macro']:.4f}."
        )
    where = "the stored thresholds" if part.get("thresholds") else "thresholds of 0.5"
    scores = {"macro F1": "f1_macro", "micro F1": "f1_micro"}
    known = [f"{title} {part[k]:.4f}" for title, k in scores.items() if part.get(k) is not None]
    low, high = (format_percent(end, 2) for end in part["top1_interval"])
    loss = part.get("loss")
    return (
        f"{facts} At {where}: {', '.join(known)}, all classes right in"
        f" {format_percent(part['exact_match'], 2)} of the images. The most probable class is one"
        f" of the image's in {format_percent(part['top1'], 2)} ({low} to {high}); always answering"
        f" the most frequent class gives {format_percent(part['baseline'], 2)}. Loss"
        f" {'–' if loss is None else f'{loss:.4g}'}, expected calibration error (ECE)"
        f" {format_percent(ece, 2)}."
    )


def _evaluation(
    part: dict[str, Any], bins: list[ReliabilityBin], ece: float
) -> MultiLabelEvaluation:
    return MultiLabelEvaluation(
        [LabelMetrics(**one) for one in part["classes"]],
        {name: part[f"{name}_interval"] for name in ("top1", "map") if f"{name}_interval" in part},
        bins,
        ece,
        np.empty(0, int),
    )


def _classes(classes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the classes with the lowest average precision, and the others, folded."""

    def order(one: dict[str, Any]) -> float:
        return 2.0 if one["average_precision"] is None else one["average_precision"]

    rows = [
        (
            one_line(one["name"]),
            _percent(one["average_precision"]),
            _percent(one["auroc"]),
            f"{one['threshold']:.3g}",
            _percent(one["recall"]),
            "–"
            if one["recall_interval"] is None
            else "{} to {}".format(*map(format_percent, one["recall_interval"])),
            _percent(one["precision"]),
            _percent(one["f1"]),
            f"{one['examples']:,}",
        )
        for one in sorted(classes, key=order)
    ]
    shown = [html_page.table(_HEAD, rows[:_MAX_ROWS], "classes, lowest average precision first")]
    if len(rows) > _MAX_ROWS:
        rest = html_page.table(_HEAD, rows[_MAX_ROWS:], "the other classes")
        shown.append(html_page.folded(f"{len(rows) - _MAX_ROWS:,} more classes", rest))
    return shown


def _percent(share: float | None) -> str:
    return "–" if share is None else format_percent(share)
