"""The section of ``report.html`` on an evaluation of segmentation, and its JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax_resnet import schema
from flax_resnet.text import one_line
from train.data.masks import IGNORED
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results, html_page
from train.reporting.html_page import Tile
from train.reporting.metric_names import BASELINES
from train.reporting.report import enlarge
from train.reporting.report.result_sentence import quote
from train.reporting.report.section_parts import (
    COUNT,
    EVALUATION,
    SHARE,
    TEXT,
    class_table,
    percent,
)
from train.reporting.segmentation import pictures, results
from train.reporting.segmentation.metrics import PixelMetrics, SegmentationEvaluation, cautions
from train.reporting.segmentation.picture_grid import picture_sections
from train.runtime.cli import MAX_SCALE
from train.runtime.formatting import format_percent, pluralize
from train.tasks.segmentation_metrics import SEGMENTATION_METRICS
from train.workdir.metrics_log import finite

_HEAD = ("class", "images", "share of the pixels", "IoU", "recall", "precision")
_known_share = schema.optional(SHARE)


def _part(**fields: Any) -> dict[str, Any]:
    unknown = [k for k in fields["shown"] or () if k != IGNORED and k >= len(fields["classes"])]
    if unknown:
        raise ValueError(f"it shows class {unknown[0]} of {len(fields['classes'])}")
    if (fields["worst"] or fields["others"]) and fields["shown"] is None:
        raise ValueError("it has pictures, but not the classes that they show")
    return {name: value for name, value in fields.items() if value is not None}


_FIELDS = {
    **EVALUATION,
    "kind": schema.text(100),
    "scales": schema.optional(schema.sequence(schema.number(0, MAX_SCALE), 1, 100)),
    "tiled": schema.optional(COUNT),
    **dict.fromkeys(
        ("miou", "miou_baseline", "pixel_accuracy", "mean_accuracy", "baseline"), SHARE
    ),
    **{
        f"{name}_interval": schema.optional(schema.sequence(SHARE, 2, 2))
        for name in SEGMENTATION_METRICS
    },
    "classes": schema.sequence(
        schema.record(
            name=TEXT,
            **dict.fromkeys(("images", "pixels", "predicted", "correct"), COUNT),
            **dict.fromkeys(("iou", "recall", "precision"), _known_share),
        ),
        1,
        1_000_000,
    ),
    **pictures.FIELDS,
}
PART = schema.record(_part, **_FIELDS)


def build_part(evaluated: Evaluated, evaluation: SegmentationEvaluation) -> dict[str, Any]:
    """Return the content of :func:`section`, for JSON."""
    part = results.to_dict(evaluated, evaluation)
    part |= pictures.picture_parts(evaluated, evaluation)
    return finite({name: value for name, value in part.items() if name in _FIELDS})


def section(name: str, part: dict[str, Any]) -> str:
    """Return the HTML of the evaluation ``name`` from the content of :func:`build_part`."""
    loss = part.get("loss")
    facts = (
        f"{part['dataset']} {part['split']}:"
        f" {evaluation_results.description(part, part['weights'])}. Mean intersection over union"
        f" (mIoU) {_share(part, 'miou')}; of the largest class everywhere"
        f" {_share(part, 'miou_baseline')}. Pixel accuracy {_share(part, 'pixel_accuracy')}; of the"
        f" largest class everywhere {_share(part, 'baseline')}. Mean recall of the classes"
        f" {_share(part, 'mean_accuracy')}. Loss {'–' if loss is None else f'{loss:.4g}'}."
    )
    evaluation = SegmentationEvaluation([PixelMetrics(**one) for one in part["classes"]])
    return html_page.section(
        f"Evaluation: {name}",
        html_page.paragraph(facts),
        *(html_page.paragraph(f"Warning: {text}.") for text in cautions(part, evaluation)),
        "<h3>Intersection over union of each class</h3>",
        *_classes(part["classes"]),
        *picture_sections(part, enlarge.make_key(name)),
    )


def _share(part: Mapping[str, Any], metric: str) -> str:
    """Return a metric, with its interval if there is one."""
    text, interval = format_percent(part[metric], 2), part.get(f"{metric}_interval")
    if not interval:
        return text
    low, high = (format_percent(end, 2) for end in interval)
    return f"{text}, 95 % confidence interval (bootstrap) {low} to {high}"


def _classes(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of the classes with the lowest IoU, and the others, folded."""
    total = max(1, sum(one["pixels"] for one in classes))
    rows = [
        (
            one_line(one["name"]),
            f"{one['images']:,}",
            format_percent(one["pixels"] / total),
            *(percent(one[name]) for name in ("iou", "recall", "precision")),
        )
        for one in sorted(classes, key=_iou)
    ]
    return class_table(_HEAD, rows, "classes, lowest IoU first", "the other classes")


def _iou(one: Mapping[str, Any]) -> float:
    return 2.0 if one["iou"] is None else one["iou"]


def _worst_class(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the class with the lowest IoU of those in the masks, if there are any."""
    present = [one for one in part["classes"] if one["pixels"]]
    return min(present, key=_iou, default=None)


def sentence(part: Mapping[str, Any]) -> str:
    """Return the result in plain words."""
    text = (
        f"Right in {format_percent(part['pixel_accuracy'])} of the pixels of"
        f" {pluralize(part['examples'], 'image')}"
    )
    worst = _worst_class(part)
    if worst is None or worst["iou"] == 1:
        return f"{text}."
    return f"{text}; the worst class is {quote(worst['name'])}, IoU {percent(worst['iou'])}."


def tiles(part: Mapping[str, Any]) -> list[Tile]:
    """Return the worst class, and the pixel accuracy."""
    found = []
    if worst := _worst_class(part):
        remark = f"IoU of {quote(worst['name'])}, in {pluralize(worst['images'], 'image')}"
        found.append(("worst class", percent(worst["iou"]), remark))
    remark = f"largest class everywhere: {format_percent(part['baseline'])}"
    return [*found, ("pixel accuracy", format_percent(part["pixel_accuracy"]), remark)]


def baseline(metric: str, part: Mapping[str, Any]) -> float | None:
    """Return a metric of always answering the largest class; None where that has no meaning."""
    return part.get(BASELINES.get(metric, ""))
