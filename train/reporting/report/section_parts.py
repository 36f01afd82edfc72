"""What the report's sections on evaluations of images of one and of several classes share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.own_networks import has_maps
from flax_resnet.preprocessing import to_viewable
from train.engine.evaluation import Evaluated
from train.reporting import html_page
from train.reporting.calibration.results import MEASURED, measured_lines
from train.reporting.charts import reliability
from train.reporting.classification_metrics import ReliabilityBin
from train.runtime.formatting import format_percent

NUM_EXPLAINED = 8  # images with Grad-CAM maps, half of them mistakes if there are enough
PIXELATED_BELOW = 64  # pixels; smaller images are enlarged without smoothing
_MAX_ROWS = 25  # of the table of classes

TEXT, COUNT = schema.text(10_000, any_path=True), schema.integer()
SHARE = schema.number(0, 1 + 1e-6)  # means of ones may be rounded
CELLS = schema.sequence(schema.record(image=html_page.data_uri, caption=TEXT), 0, 100)
FIELDS = {
    "dataset": TEXT,
    "split": TEXT,
    "weights": schema.text(choices=("ema", "raw")),
    "tta": schema.optional(TEXT),
    "examples": COUNT,
    "bad": schema.optional(COUNT),
    "step": COUNT,
    "small": schema.boolean,
    "top1": SHARE,
    "top1_interval": schema.sequence(SHARE, 2, 2),
    "baseline": schema.optional(SHARE),
    "loss": schema.optional(schema.number()),
    "expected_calibration_error": schema.optional(SHARE),
    "reliability": schema.sequence(
        schema.record(low=SHARE, high=SHARE, examples=COUNT, confidence=SHARE, accuracy=SHARE),
        1,
        100,
    ),
    "calibration": schema.optional(MEASURED),
    "mistakes": schema.optional(CELLS),
    "explained": schema.optional(CELLS),
}


def image_parts(
    evaluated: Evaluated,
    mistakes: np.ndarray,
    names: Sequence[str],
    captions: Callable[[np.ndarray], Sequence[str]],
) -> dict[str, Any]:
    """Return the fields ``small``, ``mistakes`` and ``explained``, as far as there are any.

    Grad-CAM maps of some images are included if the evaluation has its variables.

    Args:
      evaluated: the evaluation.
      mistakes: indices into the predictions, the most confident wrong ones first.
      names: names of these images.
      captions: returns the captions of some images, by their indices.
    """
    predictions, loader = evaluated.predictions, evaluated.loader
    parts: dict[str, Any] = {"small": max(loader.image_shape[:2]) < PIXELATED_BELOW}
    if len(mistakes):
        squares = to_viewable(loader.center_crops(predictions.record[mistakes]))
        parts["mistakes"] = html_page.image_cells(squares, captions(mistakes))
        for cell, name in zip(parts["mistakes"], names, strict=True):
            cell["caption"] += f"\n{name}"  # to find it, and to correct its label
    if evaluated.variables is not None and has_maps(evaluated.model):
        # Of several classes the most probable one, which a map explains, may still be right.
        indices = choose_explained(evaluated, mistakes[~predictions.right[mistakes]])
        pairs = gradcam_pairs(evaluated, indices)
        parts["explained"] = html_page.image_cells(pairs, captions(indices))
    return parts


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


def calibration(part: Mapping[str, Any]) -> list[str]:
    """Return the measured calibration, if there is one, and the reliability diagram."""
    bins = [ReliabilityBin(**one) for one in part["reliability"]]
    ece = part.get("expected_calibration_error") or 0.0
    measured = part.get("calibration")
    lines = measured_lines(measured) if measured else []
    panels = reliability.reliability_panels(bins, ece)
    return [*map(html_page.paragraph, lines), html_page.charts(panels)]


def image_grids(part: Mapping[str, Any], prediction: str) -> list[str]:
    """Return the grids of images; ``prediction`` is what their Grad-CAM maps support."""
    grids = {
        "explained": f"Grad-CAM: image regions that support the {prediction}",
        "mistakes": "Most confident mistakes",
    }
    return [
        f"<h3>{title}</h3>{html_page.image_grid(part[key], part['small'], key == 'explained')}"
        for key, title in grids.items()
        if part.get(key)
    ]


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
