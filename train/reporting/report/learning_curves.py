"""The section of the report on what a run learned, and how fast; also as ``curves.svg``."""

from collections.abc import Sequence
from typing import Any

from train.config.access import flatten
from train.reporting import html_page
from train.reporting.charts import curves, svg
from train.reporting.charts.panel import Panel
from train.reporting.metric_names import has_percent_axis, title

_Rows = Sequence[dict[str, float | None]]
_ALWAYS_SHOWN = ("top1", "map", "miou", "pixel_accuracy", "loss")  # metrics with curves
# What each key does to the training metrics, unless it has one of these values.
_OFF = (0, 0.0, False, "", None, -1.0)  # -1: that of the named model
_CONDITIONS = {
    "label_smoothing": "label smoothing",
    "augment.mixup": "mixup",
    "augment.cutmix": "CutMix",
    "class_weights": "class weights",
    "pos_weight": "weights of positive labels",
    "logit_adjustment": "logit adjustment",
    "bce_target_threshold": "a target threshold",
    "model.dropout": "dropout",
    "model.block_dropout": "dropout",
    "model.drop_path": "stochastic depth",
    **dict.fromkeys(
        (
            *("augment.hflip", "augment.vflip", "augment.pad_crop", "augment.policy"),
            *("augment.cutout", "augment.random_erasing"),
        ),
        "augmentation",
    ),
}


def section(rows: _Rows, config: Any, name: str) -> str:
    """Return the section, with the speed folded; nothing without any metrics.

    Args:
      rows: rows of ``metrics.jsonl``.
      config: the run's configuration.
      name: the run's name.
    """
    learned = html_page.charts(_panels(rows, config), name)
    speed = html_page.charts(curves.time_panels(rows), name)
    folded = html_page.folded("Speed and waiting for input", speed) if speed else ""
    return html_page.section("Learning curves", learned, folded)


def svg_text(rows: _Rows, config: Any, name: str) -> str:
    """Return the curves as the text of an SVG file; arguments are those of :func:`section`."""
    return svg.document(_panels(rows, config), name)


def _panels(rows: _Rows, config: Any) -> list[Panel]:
    """Return the curves, with one of the metric that decides about the best state."""
    panels = curves.run_panels(rows, training_conditions(config))
    metric = config.eval.metric
    if metric not in _ALWAYS_SHOWN:
        key, is_share = f"eval/{metric}", has_percent_axis(metric)
        chosen = curves.evaluation_panel(rows, key, title(metric), is_share)
        panels[1:1] = [chosen] if chosen else []
    return panels


def training_conditions(config: Any) -> str:
    """Return what makes training metrics others than those of an evaluation; empty for nothing.

    For example ``"with label smoothing, mixup and augmentation"``.
    """
    values = flatten(config)
    names = [text for key, text in _CONDITIONS.items() if values.get(key, 0) not in _OFF]
    if any(values.get("augment.color_jitter", ())) or _crops(values):
        names.append("augmentation")
    if values.get("loader.sampling") == "balanced":
        names.append("balanced sampling")
    if values.get("loss") == "focal":  # of other losses the evaluation has the same
        names.append("the focal factor")
    names = list(dict.fromkeys(names))
    if not names:
        return ""
    *first, last = names
    return f"with {', '.join(first)} and {last}" if first else f"with {last}"


def _crops(values: dict[str, Any]) -> bool:
    return tuple(values.get("augment.rrc_scale", (1.0, 1.0))) != (1.0, 1.0)
