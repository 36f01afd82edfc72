"""The metric that compares a quantized file with the exported one, by the kind of the run."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flax_resnet.runs import Run
from train.data.masks import IGNORED
from train.export.onnx.measurement import UNDEFINED
from train.export.outputs import on_canvas
from train.tasks.multi_label_metrics import multi_label_metrics
from train.tasks.segmentation_metrics import confusion_metrics

_BATCH_SIZE, _BATCH_PIXELS = 8, 2**20
_MAX_PIXELS = 2**26  # of all images of segmentation, which are in memory
_NAN = float("nan")


class Scoring(NamedTuple):
    """How the outputs of a kind of runs are scored.

    Attributes:
      metric: ``(run) -> name``.
      outputs: what is kept of them, see :mod:`train.export.onnx.measurement`.
      prepare: ``(run, image, label) -> (image, label)``, as the run's evaluation does it.
      max_images: ``(run) -> number`` of images that fit in memory.
      batch_size: ``(run) -> number`` of images that are computed together.
      score: ``(run, outputs, labels, raw) -> metric``, NaN if it is undefined; ``raw`` is whether
        the outputs are logits in any case.
    """

    metric: Callable[[Run], str]
    outputs: str
    prepare: Callable[[Run, np.ndarray, Any], tuple[np.ndarray, Any]]
    max_images: Callable[[Run], int]
    batch_size: Callable[[Run], int]
    score: Callable[[Run, np.ndarray, np.ndarray, bool], float]


def _score_images(run: Run, outputs: np.ndarray, labels: np.ndarray, raw: bool) -> float:
    """Return top-1 accuracy, or mean average precision for several classes per image."""
    probabilities = np.asarray(run.probabilities(outputs) if raw else outputs)
    if not np.isfinite(probabilities).all():
        return _NAN
    if not run.several_labels:
        return float((probabilities.argmax(axis=1) == labels).mean())
    predictions = {"label": labels, "probabilities": probabilities}
    return multi_label_metrics(predictions, probabilities.shape[1]).get("map", _NAN)


def _score_pixels(run: Run, classes: np.ndarray, labels: np.ndarray, raw: bool) -> float:
    """Return the mean intersection over union."""
    valid, count = labels != IGNORED, run.model.num_classes
    if (classes == UNDEFINED).any() or not valid.any():
        return _NAN
    cells = labels[valid].astype(np.int64) * count + classes[valid]
    confusion = np.bincount(cells, minlength=count**2).reshape(count, count)
    return confusion_metrics(confusion)["miou"]


def _pixels(run: Run) -> int:
    height, width, _ = run.preprocessing.shape
    return height * width


# By the kind of the run, see flax_resnet.weights.run_info.RunInfo.
SCORING = {
    None: Scoring(
        metric=lambda run: "map" if run.several_labels else "top1",
        outputs="all",
        prepare=lambda run, image, label: (run.preprocessing.crop(image), label),
        max_images=lambda run: sys.maxsize,
        batch_size=lambda run: _BATCH_SIZE,
        score=_score_images,
    ),
    "segmentation": Scoring(
        metric=lambda run: "miou",
        outputs="classes",
        prepare=on_canvas,
        max_images=lambda run: max(_BATCH_SIZE, _MAX_PIXELS // _pixels(run)),
        batch_size=lambda run: min(_BATCH_SIZE, max(1, _BATCH_PIXELS // _pixels(run))),
        score=_score_pixels,
    ),
}


def scoring(run: Run) -> Scoring:
    """Return how the outputs of a run are scored."""
    return SCORING[run.kind]
