"""Results of an evaluation of segmentation, for the console and as files."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flax_resnet.text import one_line
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results
from train.reporting.segmentation.metrics import SegmentationEvaluation
from train.runtime.formatting import format_percent, pluralize
from train.tasks.bootstrap import Interval
from train.tasks.segmentation import SegmentationPredictions
from train.tasks.segmentation_metrics import class_iou, image_iou, pixel_metrics

_SUMMARY_ITEMS = 5  # classes and images in the summary
_JSON_IMAGES = 100


def summary(evaluated: Evaluated, evaluation: SegmentationEvaluation) -> str:
    """Return the results in a few lines for the console."""
    result, source = evaluated.result, evaluated.loader.source

    def line(title: str, name: str, about: str = "") -> str:
        notes = filter(None, (about, _describe_interval(evaluation.intervals.get(name))))
        return f"{title:14} {format_percent(result[name], 2):>8}  {'; '.join(notes)}".rstrip()

    largest = f"{format_percent(result['baseline'], 2)} by the largest class everywhere"
    lines = [
        f"{source.name} {source.split}:"
        f" {evaluation_results.description(result, evaluated.weights)}",
        line("mIoU", "miou"),
        line("baseline", "miou_baseline", "mIoU of the largest class everywhere"),
        line("pixel accuracy", "pixel_accuracy", largest),
        line("mean accuracy", "mean_accuracy", "mean recall of the classes"),
        f"loss           {result['loss']:.4f}",
    ]
    known = [one for one in evaluation.classes if one.iou is not None]
    worst = sorted((one for one in known if one.iou < 1), key=lambda one: one.iou)
    if worst:
        named = [
            f"{one.name}: {format_percent(one.iou)} (in {pluralize(one.images, 'image')})"
            for one in worst[:_SUMMARY_ITEMS]
        ]
        lines.append(f"lowest IoU     {', '.join(named)}")
    named = [
        f"{name}: {format_percent(iou)}"
        for name, iou in _lowest(evaluated, evaluation, _SUMMARY_ITEMS)
    ]
    if named:
        lines.append(f"worst images   {', '.join(named)}  mean IoU of the classes in each")
    return "\n".join(map(one_line, lines))


def _describe_interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = (format_percent(end, 2) for end in interval)
    return f"95 % confidence interval (bootstrap) {low} to {high}"


def order_by_iou(image_iou: np.ndarray) -> np.ndarray:
    """Return the indices of the images with a labeled pixel, lowest IoU first."""
    order = np.argsort(image_iou, kind="stable")
    return order[: np.count_nonzero(~np.isnan(image_iou))]


def _lowest(
    evaluated: Evaluated, evaluation: SegmentationEvaluation, count: int
) -> list[tuple[str, float]]:
    """Return the names of the images of the lowest IoU below 1, with it."""
    source, record = evaluated.loader.source, evaluated.predictions.record
    return [
        (source.record_name(int(record[i])), float(evaluation.image_iou[i]))
        for i in order_by_iou(evaluation.image_iou)[:count]
        if evaluation.image_iou[i] < 1
    ]


def write_results(
    folder: str,
    evaluated: Evaluated,
    evaluation: SegmentationEvaluation,
    warn: Callable[[str], None],
) -> list[str]:
    """Write ``evaluation.json``; return the names of the files.

    Raises:
      RunError: the folder cannot be written.
    """
    return evaluation_results.write_files(folder, to_dict(evaluated, evaluation), {}, warn)


def to_dict(evaluated: Evaluated, evaluation: SegmentationEvaluation) -> dict[str, Any]:
    """Return all results, for JSON."""
    content = evaluated.result | {
        "kind": evaluated.predictions.kind,
        "dataset": evaluated.loader.source.name,
        "weights": evaluated.weights,
        **{f"{name}_interval": interval for name, interval in evaluation.intervals.items()},
        "classes": [vars(one) for one in evaluation.classes],
        "lowest_image_iou": [
            {"image": name, "iou": iou}
            for name, iou in _lowest(evaluated, evaluation, _JSON_IMAGES)
        ],
    }
    if len(evaluation.classes) <= evaluation_results.MAX_JSON_CLASSES:
        content["confusion"] = evaluated.predictions.confusion.tolist()
    return content


def confusion(evaluated: Evaluated) -> np.ndarray:
    """Return the number of pixels by label and prediction, ``(outputs, outputs)``."""
    return evaluated.predictions.confusion


def rows(
    predictions: SegmentationPredictions, images: Sequence[str], names: Sequence[str]
) -> Iterator[tuple]:
    """Yield the rows of a CSV file of images, the titles first.

    They have ``image``, ``pixels`` (those with a class), ``pixel_accuracy``, ``iou`` (the mean of
    those of the classes in the image) and the intersection over union of each class, empty if it
    is neither label nor prediction of a pixel.
    """
    counts = predictions.counts
    labels, predicted, correct = np.moveaxis(counts, 1, 0)
    metrics = pixel_metrics(labels, predicted, correct)
    shares = metrics["pixel_accuracy"], image_iou(counts), *class_iou(labels, predicted, correct).T
    yield "image", "pixels", "pixel_accuracy", "iou", *names
    for image, pixels, *values in zip(images, labels.sum(1), *shares, strict=True):
        yield image, int(pixels), *("" if np.isnan(v) else f"{v:.7g}" for v in values)
