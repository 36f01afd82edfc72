"""What an evaluation of segmentation shows, by class and in all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from train.engine.evaluation import Evaluated
from train.engine.predictions import output_names
from train.runtime.formatting import format_percent, join_names
from train.tasks.bootstrap import Interval
from train.tasks.pixel_bootstrap import pixel_intervals
from train.tasks.segmentation_metrics import class_iou, image_iou

_MAX_NAMED = 5  # classes in one line


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics of the pixels of one class.

    Attributes:
      name: class name.
      images: images with the class.
      pixels: pixels of the class.
      predicted: pixels for which it is predicted.
      correct: those of them that have it.
      iou: intersection over union; None if there are neither such pixels nor predictions.
      recall: share of its pixels for which it is predicted; None without any.
      precision: share of its pixels among those for which it is predicted; None without any.
    """

    name: str
    images: int
    pixels: int
    predicted: int
    correct: int
    iou: float | None
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class SegmentationEvaluation:
    """Metrics of an evaluation beside those of its result.

    Attributes:
      classes: metrics per output of the network, in their order.
      intervals: 95 % bootstrap intervals of metrics over resamples of the images.
      image_iou: mean intersection over union of each image ``(N,)``; NaN without a labeled pixel.
    """

    classes: Sequence[PixelMetrics]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    image_iou: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False)


def compute(evaluated: Evaluated) -> SegmentationEvaluation:
    """Return the metrics of an evaluation."""
    predictions = evaluated.predictions
    names = output_names(evaluated.loader.source.class_names, predictions.outputs)
    labels, predicted = predictions.confusion.sum(1), predictions.confusion.sum(0)
    correct = np.diagonal(predictions.confusion)
    images = (predictions.counts[:, 0] > 0).sum(0)
    iou = class_iou(labels, predicted, correct)
    columns = (array.tolist() for array in (images, labels, predicted, correct, iou))
    classes = [
        PixelMetrics(
            name=name,
            images=in_images,
            pixels=pixels,
            predicted=chosen,
            correct=hits,
            iou=None if np.isnan(overlap) else overlap,
            recall=hits / pixels if pixels else None,
            precision=hits / chosen if chosen else None,
        )
        for name, in_images, pixels, chosen, hits, overlap in zip(names, *columns, strict=True)
    ]
    counts = predictions.counts
    return SegmentationEvaluation(classes, pixel_intervals(counts), image_iou(counts))


def cautions(result: Mapping[str, Any], evaluation: SegmentationEvaluation) -> list[str]:
    """Return plain lines on an evaluation that is worse than its first number looks."""
    lines = []
    if result["miou"] <= result["miou_baseline"]:
        lines.append(
            f"mIoU {format_percent(result['miou'], 2)} is not above that of always answering the"
            f" largest class, {format_percent(result['miou_baseline'], 2)}"
        )
    lost = [one.name for one in evaluation.classes if one.pixels and not one.correct]
    if lost:
        verb = "is" if len(lost) == 1 else "are"
        lines.append(f"{join_names(lost, _MAX_NAMED)} {verb} never found")
    absent = [one.name for one in evaluation.classes if not one.pixels]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        lines.append(
            f"{join_names(absent, _MAX_NAMED)} {verb} in no evaluated mask; mIoU counts"
            f" {'it' if len(absent) == 1 else 'them'} only where predicted, with 0"
        )
    return lines
