"""The section of ``report.html`` on images with any number of classes, and its JSON."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.text import one_line
from train.config.registries import parse_top_k
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results, html_page
from train.reporting.classification_metrics import wilson_interval
from train.reporting.multi_label import results
from train.reporting.multi_label.metrics import LabelMetrics, MultiLabelEvaluation, cautions
from train.reporting.report import enlarge
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
from train.runtime.formatting import format_percent
from train.tasks.multi_label_metrics import MULTI_LABEL_METRICS
from train.workdir.metrics_log import finite

_HEAD = (
    *("class", "images", "average precision", "AUROC", "threshold", "recall (95 % interval)"),
    *("precision (95 % interval)", "F1 (95 % interval)"),
)
_COUNTS = (
    *("class", "true positives", "false negatives", "false positives", "true negatives"),
    "threshold",
)
_known_share = schema.optional(SHARE)
_interval = schema.sequence(schema.number(-1, 1 + 1e-6), 2, 2)


def _part(**fields: Any) -> dict[str, Any]:
    needed = ["baseline", "exact_match"]
    needed += ["map_baseline", "auroc_macro"] if fields["map"] is not None else []
    missing = [name for name in needed if fields[name] is None]
    for one in fields["classes"]:
        if one["examples"] and one["recall"] is None:
            missing.append(f"recall of {one['name']!r}")
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    return {name: value for name, value in fields.items() if value is not None}


_FIELDS = {
    **FIELDS,
    "task": schema.text(100),
    "map_interval": schema.optional(_interval),
    "auroc_macro_interval": schema.optional(_interval),
    **dict.fromkeys((*MULTI_LABEL_METRICS, "map_baseline"), _known_share),
    "top_k": schema.optional(schema.mapping(schema.record(share=SHARE, interval=_interval))),
    "thresholds": schema.optional(schema.mapping(SHARE, 1_000_000)),
    "classes": schema.sequence(
        schema.record(
            name=TEXT,
            examples=COUNT,
            average_precision=_known_share,
            auroc=_known_share,
            threshold=SHARE,
            recall=_known_share,
            recall_interval=schema.optional(_interval),
            precision=_known_share,
            f1=_known_share,
            precision_interval=schema.optional(_interval),
            f1_interval=schema.optional(_interval),
            predicted=schema.optional(COUNT),
            correct=schema.optional(COUNT),
        ),
        1,
        1_000_000,
    ),
}
PART = schema.record(_part, **_FIELDS)


def build_part(evaluated: Evaluated, evaluation: MultiLabelEvaluation) -> dict[str, Any]:
    """Return the content of :func:`section`, for JSON."""
    part = results.to_dict(evaluated, evaluation)
    part["top_k"] = {
        name: {"share": part[name], "interval": _interval_of(part[name], part["examples"])}
        for name in sorted(filter(parse_top_k, evaluated.result), key=parse_top_k)
        if name != "top1"
    }
    part["rankings"] = evaluation.rankings()
    captions = partial(results.captions, evaluated)
    part |= image_parts(evaluated, evaluation.right, evaluation.mistakes, captions)
    return finite({name: value for name, value in part.items() if name in _FIELDS})


def _interval_of(share: float, examples: int) -> tuple[float, float]:
    return wilson_interval(round(share * examples), examples)


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from the content of :func:`build_part`."""
    warnings, key = cautions(part, _evaluation(part)), enlarge.make_key(name)
    return html_page.section(
        f"Evaluation: {name}",
        html_page.paragraph(_facts(part)),
        *(html_page.paragraph(f"Warning: {text}.") for text in warnings),
        "<h3>Classes</h3>",
        *_classes(part["classes"]),
        recall_chart(part["classes"]),
        *_counts(part),
        *ranking_curves(part),
        "<h3>Calibration</h3>",
        html_page.paragraph("Of the probabilities of all images and classes."),
        *calibration(part),
        *image_sections(part, "most probable class", key),
    )


def _facts(part: dict[str, Any]) -> str:
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
    accuracies = {"top1": {"share": part["top1"], "interval": part["top1_interval"]}}
    accuracies |= part.get("top_k") or {}
    loss = part.get("loss")
    return (
        f"{facts} At {where}: {', '.join(known)}, all classes right in"
        f" {format_percent(part['exact_match'], 2)} of the images."
        f" {' '.join(_hits(name, **one) for name, one in accuracies.items())} Always answering"
        f" the most frequent class gives {format_percent(part['baseline'], 2)}. Loss"
        f" {'–' if loss is None else f'{loss:.4g}'}, expected calibration error (ECE)"
        f" {percent(part.get('expected_calibration_error'), 2)}."
    )


def _hits(metric: str, share: float, interval: Sequence[float]) -> str:
    """Return a top-k accuracy as a sentence."""
    k = parse_top_k(metric)
    which = "The most probable class" if k == 1 else f"One of the {k} most probable classes"
    low, high = (format_percent(end, 2) for end in interval)
    return f"{which} is one of the image's in {format_percent(share, 2)} ({low} to {high})."


def _evaluation(part: dict[str, Any]) -> MultiLabelEvaluation:
    """Return as much of the evaluation as :func:`cautions` need."""
    return MultiLabelEvaluation(
        [LabelMetrics(**one) for one in part["classes"]],
        {name: part[f"{name}_interval"] for name in ("top1", "map") if f"{name}_interval" in part},
        bins=[],
        ece=0.0,
        mistakes=np.empty(0, int),
        right=np.empty(0, bool),
    )


def _classes(classes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the classes with the lowest average precision, and the others, folded."""

    def order(one: dict[str, Any]) -> float:
        return 2.0 if one["average_precision"] is None else one["average_precision"]

    rows = [
        (
            one_line(one["name"]),
            f"{one['examples']:,}",
            percent(one["average_precision"]),
            percent(one["auroc"]),
            f"{one['threshold']:.3g}",
            with_interval(one["recall"], one["recall_interval"]),
            with_interval(one["precision"], one.get("precision_interval")),
            with_interval(one["f1"], one.get("f1_interval")),
        )
        for one in sorted(classes, key=order)
    ]
    label = "classes, lowest average precision first"
    return class_table(_HEAD, rows, label, "the other classes")


def _counts(part: dict[str, Any]) -> list[str]:
    """Return the confusions of each class at its threshold, the most errors first.

    There are none for an evaluation of an older version.
    """
    images, rows = part["examples"], []
    for one in part["classes"]:
        if one.get("predicted") is None or one.get("correct") is None:
            return []
        found, missed = one["correct"], one["examples"] - one["correct"]
        false = one["predicted"] - found
        counts = (found, missed, false, images - found - missed - false)
        rows.append((one_line(one["name"]), counts, f"{one['threshold']:.3g}"))
    rows.sort(key=lambda row: -(row[1][1] + row[1][2]))
    shown = [(name, *(f"{n:,}" for n in counts), threshold) for name, counts, threshold in rows]
    text = (
        "Numbers of images: with the class and found, missed, without the class but predicted, and"
        " rightly not predicted."
    )
    label = "confusions of each class at its threshold, most errors first"
    return [
        "<h3>Confusions at the thresholds</h3>",
        html_page.paragraph(text, "weak"),
        *class_table(_COUNTS, shown, label, "the other classes"),
    ]
