"""Results of an evaluation: the console summary, ``evaluation.json``, charts and mistakes."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet.files import write_atomically
from flax_resnet.preprocessing import to_viewable
from flax_resnet.text import one_line, truncate
from train.config.registries import SPLIT_METRICS, parse_top_k
from train.engine.evaluation import Evaluated
from train.engine.predictions import output_names
from train.reporting import rankings
from train.reporting.charts import confusion_matrix, ranking, reliability, svg
from train.reporting.classification_metrics import ClassificationMetrics, compute_metrics
from train.reporting.confusions import Confusions, clustered_order, matrix_cells
from train.reporting.metric_names import title
from train.reporting.plots import Pictures, Plots, draw_grid
from train.runtime.files import writing
from train.runtime.formatting import MAX_CAPTION, format_percent, pluralize
from train.tasks.abstention import AbstentionPoint, abstention_curve, area_under_risk
from train.tasks.predictions import Predictions
from train.workdir.metrics_log import finite

FILE = "evaluation.json"
Draw = Callable[[str], object]
RANKINGS = "precision_recall_roc.svg"
MAX_JSON_CLASSES = 1000  # classes of a confusion matrix that is written to FILE
_SUMMARY_ITEMS = 5  # classes and confusions in the summary


def evaluation_metrics(evaluated: Evaluated) -> ClassificationMetrics:
    """Return the metrics of the predictions of an evaluation."""
    names = list(evaluated.loader.source.class_names)
    top_k = filter(None, map(parse_top_k, evaluated.result))
    metrics = compute_metrics(evaluated.predictions, names, top_k)
    # Those of ImageNet take as long as the evaluation itself on fast devices.
    return dataclasses.replace(metrics, rankings=functools.cache(lambda: rankings_of(evaluated)))


def default_folder(workdir: str, evaluated: Evaluated) -> str:
    """Return the default folder of the results, a different one for each evaluation."""
    result, config = evaluated.result, evaluated.config
    parts = [str(result["step"]), result["split"]]
    if "dataset" in result:
        folder = os.path.basename(config.dataset.data_dir.rstrip("/"))
        parts.append(folder if result["dataset"] == "folder" else result["dataset"])
    if config.ema.decay:
        parts.append(evaluated.weights)
    if "tta" in result:
        parts.append(result["tta"])
    if "scales" in result:
        parts.append("-".join(["scales", *map("{:g}".format, result["scales"])]))
    if "tiled" in result:
        parts.append("window")
    name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
    if "dataset" in result or re.search(r"[^\w.-]", "".join(parts)):
        # A hash separates evaluations of the same name, such as two folders called photos.
        place = config.dataset.labels or config.dataset.data_dir if "dataset" in result else ""
        if place and "://" not in place:
            place = os.path.realpath(place)
        key = json.dumps([*parts[1:], place])  # the same at any step
        name += f"_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return os.path.join(workdir, "evaluation", name)


def summary(evaluated: Evaluated, metrics: ClassificationMetrics) -> str:
    """Return the results in a few lines for the console."""
    result, source = evaluated.result, evaluated.loader.source
    accuracies = sorted(filter(parse_top_k, result), key=parse_top_k)
    own = [name for name in evaluated.config.eval.metrics if name in result]
    lines = [
        f"{source.name} {source.split}: {description(result, evaluated.weights)}",
        *(f"{title(name):12} {_accuracy(name, result, metrics)}" for name in accuracies),
        f"baseline     {format_percent(result['baseline'], 2):>8}  share of the largest class",
        *(
            f"{name:12} {result[name]:.4f}{_bootstrap(metrics.intervals.get(name))}"
            for name in SPLIT_METRICS
            if name in result
        ),
        f"loss         {result['loss']:.4f}",
        *(f"{name:12} {result[name]:.4f}" for name in own if name not in accuracies),
        f"calibration  mean confidence {format_percent(metrics.confidence)}, accuracy"
        f" {format_percent(result['top1'])}, expected calibration error (ECE)"
        f" {format_percent(metrics.ece, 2)}",
    ]
    imperfect = [one for one in metrics.classes if one.examples and one.recall < 1]
    worst = [
        f"{one.name}: {format_percent(one.recall)} ({pluralize(one.examples, 'image')})"
        for one in sorted(imperfect, key=lambda one: one.recall)
    ]
    confusions = [f"{c.label} → {c.predicted} ({c.examples:,})" for c in metrics.confused]
    for heading, items in (("worst recall", worst), ("confusions  ", confusions)):
        if items:
            lines.append(f"{heading} {', '.join(items[:_SUMMARY_ITEMS])}")
    return "\n".join(map(one_line, lines))


def description(result: dict[str, Any], weights: str) -> str:
    """Return the number of images, the step and the weights as text."""
    corrupt = f" ({result['bad']:,} corrupt ones skipped)" if "bad" in result else ""
    average = ", EMA weights" if weights == "ema" else ""
    flip = ", averaged with mirror images" if result.get("tta") == "flip" else ""
    scales = ", ".join(map("{:g}".format, result.get("scales") or ()))
    scaled = f"{' and' if flip else ', averaged'} over the scales {scales}" if scales else ""
    images, tiled = pluralize(result["examples"], "image"), result.get("tiled")
    windows = "" if tiled is None else f", {tiled:,} of them in windows at their own size"
    return f"{images}{windows}{corrupt}, step {result['step']:,}{average}{flip}{scaled}"


def subtitle(evaluated: Evaluated) -> str:
    """Return run, data and step as text, for titles."""
    result, source = evaluated.result, evaluated.loader.source
    about = f"{source.name} {source.split}: {description(result, evaluated.weights)}"
    return one_line(f"{evaluated.run} · {about}" if evaluated.run else about)


def count_pairs(evaluated: Evaluated) -> np.ndarray:
    """Return the number of images by label and prediction, ``(outputs, outputs)``."""
    predictions, size = evaluated.predictions, evaluated.predictions.outputs
    pairs = predictions.label.astype(np.int64) * size + predictions.predicted
    return np.bincount(pairs, minlength=size**2).reshape(size, size)


def _accuracy(name: str, result: dict[str, Any], metrics: ClassificationMetrics) -> str:
    low, high = (format_percent(end, 2) for end in metrics.intervals[name])
    return (
        f"{format_percent(result[name], 2):>8}  95 % confidence interval (Wilson) {low} to {high}"
    )


def _bootstrap(interval: tuple[float, float] | None) -> str:
    return (
        "" if interval is None else "  95 % interval (bootstrap) {:.4f} to {:.4f}".format(*interval)
    )


def write_results(
    folder: str, evaluated: Evaluated, metrics: ClassificationMetrics, warn: Callable[[str], None]
) -> list[str]:
    """Write ``evaluation.json`` and the charts; return the names of the files.

    If an image cannot be drawn, a warning is printed.

    Raises:
      RunError: the folder cannot be written.
    """
    predictions, names = evaluated.predictions, output_labels(evaluated)
    mistakes, about = metrics.mistakes, subtitle(evaluated)
    captions = prediction_captions(predictions, mistakes, names)
    drawings: dict[str, Draw] = {
        "confusion.svg": lambda path: write_atomically(
            path, confusion_matrix.document(confusions(evaluated, metrics), about)
        ),
        "reliability.svg": lambda path: write_atomically(
            path,
            svg.document(reliability.reliability_panels(metrics.bins, metrics.ece), about),
        ),
        "abstention.svg": lambda path: write_atomically(
            path,
            svg.document([reliability.abstention_panel(_abstention(predictions))], about),
        ),
        RANKINGS: lambda path: draw_rankings(path, metrics.rankings(), about),
        "mistakes.png": lambda path: draw_mistakes(
            path, evaluated, mistakes, captions, int((~predictions.right).sum())
        ),
    }
    return write_files(folder, to_dict(evaluated, metrics), drawings, warn)


def draw_rankings(path: str, curves: dict[str, Any] | None, about: str) -> None:
    """Draw the precision–recall and ROC curves; nothing without any."""
    if curves is not None:
        write_atomically(path, svg.document(ranking.panels(curves), about))


def write_files(
    folder: str, content: dict[str, Any], drawings: Mapping[str, Draw], warn: Callable[[str], None]
) -> list[str]:
    """Write ``evaluation.json`` and drawings; return the names of the files.

    Args:
      folder: the folder, which is made if it does not exist.
      content: that of ``evaluation.json``.
      drawings: functions that write a file, by its name.
      warn: receives a warning for a drawing that cannot be made.

    Raises:
      RunError: the folder cannot be written.
    """
    text = json.dumps(finite(content), indent=1, allow_nan=False)
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
        write_atomically(os.path.join(folder, FILE), text + "\n")
        for name, draw in drawings.items():
            with contextlib.suppress(FileNotFoundError):  # of an earlier evaluation
                os.unlink(os.path.join(folder, name))
            Plots(folder, warn).draw(name, draw)
    return [FILE, *(name for name in drawings if os.path.exists(os.path.join(folder, name)))]


def draw_mistakes(
    path: str, evaluated: Evaluated, indices: np.ndarray, captions: Sequence[str], total: int
) -> None:
    """Draw the most confident of ``total`` mistakes with captions; nothing without any."""
    if not len(indices):
        return
    records, source = evaluated.predictions.record[indices], evaluated.loader.source
    result = evaluated.result
    title = (
        f"{evaluated.run} · most confident mistakes · {len(indices):,} of {total:,} among"
        f" {pluralize(result['examples'], 'image')} of {result['split']!r}"
        f" · step {result['step']:,}"
    )
    names = [source.record_name(int(record)) for record in records]
    crops = to_viewable(evaluated.loader.center_crops(records))
    draw_grid(path, Pictures(crops, captions, names, title), columns=6)


def _abstention(predictions: Predictions) -> list[AbstentionPoint]:
    return abstention_curve(predictions.confidence, predictions.right)


def output_labels(evaluated: Evaluated) -> list[str]:
    """Return a name for each output of the head; outputs beyond the classes are numbered."""
    return output_names(evaluated.loader.source.class_names, evaluated.predictions.outputs)


def prediction_captions(
    predictions: Predictions, indices: np.ndarray, names: list[str]
) -> list[str]:
    """Return label and prediction of some images with their probabilities as text."""
    captions = []
    for i in indices:
        label, predicted = (
            truncate(names[k], MAX_CAPTION)
            for k in (predictions.label[i], predictions.predicted[i])
        )
        of_label = predictions.confidence if predictions.of_label is None else predictions.of_label
        captions.append(
            f"true: {label} ({format_percent(of_label[i], 0)})\n"
            f"predicted: {predicted} ({format_percent(predictions.confidence[i], 0)})"
        )
    return captions


def confusions(evaluated: Evaluated, metrics: ClassificationMetrics) -> Confusions:
    """Return the confusions of an evaluation; many classes are in the order of a clustering."""
    names, matrix = output_labels(evaluated), metrics.confusion
    totals, cells = matrix.sum(axis=1).tolist(), matrix_cells(matrix)
    if len(names) > confusion_matrix.MAX_NUMBERED:
        return Confusions(names, totals, cells, clustered_order(totals, cells))
    return Confusions(names, totals, cells, range(len(names)))


def rankings_of(evaluated: Evaluated) -> dict[str, Any] | None:
    """Return the precision–recall and ROC curves of an evaluation, for JSON; None without any."""
    predictions = evaluated.predictions
    return rankings.build_rankings(
        evaluated.loader.source.class_names,
        lambda k: predictions.label == k,
        predictions.probabilities,
        rankings.stored_decisions(evaluated),
        one_class_each=True,
    )


def to_dict(evaluated: Evaluated, metrics: ClassificationMetrics) -> dict[str, Any]:
    """Return all results, for JSON."""
    predictions, source = evaluated.predictions, evaluated.loader.source
    names = output_labels(evaluated)
    content = evaluated.result | {
        "dataset": source.name,
        "weights": evaluated.weights,
        **{
            f"{name}_interval": interval
            for name, interval in metrics.intervals.items()
            if name in evaluated.result
        },
        "expected_calibration_error": metrics.ece,
        "mean_confidence": metrics.confidence,
        "reliability": [one._asdict() for one in metrics.bins],
        "abstention": [one._asdict() for one in _abstention(predictions)],
        "area_under_risk_coverage": area_under_risk(predictions.confidence, predictions.right),
        "classes": [vars(one) for one in metrics.classes],
        "most_confused": [one._asdict() for one in metrics.confused],
        "most_confident_mistakes": [
            {
                "image": source.record_name(int(predictions.record[i])),
                "label": names[predictions.label[i]],
                "predicted": names[predictions.predicted[i]],
                "confidence": float(predictions.confidence[i]),
            }
            for i in metrics.mistakes
        ],
    }
    if len(metrics.confusion) <= MAX_JSON_CLASSES:
        content["confusion"] = metrics.confusion.tolist()
    return content
