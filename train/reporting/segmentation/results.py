"""Results of an evaluation of segmentation, for the console and as files."""

from collections.abc import Callable
from typing import Any

import numpy as np

from flax_resnet.text import one_line
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results
from train.reporting.segmentation.metrics import SegmentationEvaluation
from train.runtime.formatting import format_percent, pluralize

_SUMMARY_ITEMS = 5  # classes in the summary


def summary(evaluated: Evaluated, evaluation: SegmentationEvaluation) -> str:
    """Return the results in a few lines for the console."""
    result, source = evaluated.result, evaluated.loader.source
    lines = [
        f"{source.name} {source.split}:"
        f" {evaluation_results.description(result, evaluated.weights)}",
        f"mIoU           {_percent(result['miou'])}",
        f"baseline       {_percent(result['miou_baseline'])}  mIoU of the largest class everywhere",
        f"pixel accuracy {_percent(result['pixel_accuracy'])}"
        f"  {format_percent(result['baseline'], 2)} by the largest class everywhere",
        f"mean accuracy  {_percent(result['mean_accuracy'])}  mean recall of the classes",
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
    return "\n".join(map(one_line, lines))


def _percent(share: float) -> str:
    return f"{format_percent(share, 2):>8}"


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
        "classes": [vars(one) for one in evaluation.classes],
    }
    if len(evaluation.classes) <= evaluation_results.MAX_JSON_CLASSES:
        content["confusion"] = evaluated.predictions.confusion.tolist()
    return content


def confusion(evaluated: Evaluated) -> np.ndarray:
    """Return the number of pixels by label and prediction, ``(outputs, outputs)``."""
    return evaluated.predictions.confusion
