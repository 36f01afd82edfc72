"""Results of an evaluation of images with any number of classes, for the console and as files."""

from collections.abc import Callable
from typing import Any

import numpy as np

from flax_resnet.calibration import DEFAULT_THRESHOLD
from flax_resnet.files import write_atomically
from flax_resnet.text import one_line, truncate
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results
from train.reporting.charts import reliability, svg
from train.reporting.metric_names import format_metric, title
from train.reporting.multi_label.metrics import MultiLabelEvaluation
from train.runtime.formatting import MAX_CAPTION, format_percent, pluralize
from train.tasks.bootstrap import Interval
from train.tasks.multi_label_metrics import MULTI_LABEL_METRICS, decide

_SUMMARY_ITEMS = 5  # classes in the summary


def summary(evaluated: Evaluated, evaluation: MultiLabelEvaluation) -> str:
    """Return the results in a few lines for the console."""
    result, source = evaluated.result, evaluated.loader.source
    lines = [
        f"{source.name} {source.split}: {evaluation_results.description(result, evaluated.weights)}"
    ]
    if "map" in result:
        lines += [
            f"mAP          {_percent(result['map'])}{_interval(evaluation.intervals.get('map'))}",
            f"baseline     {_percent(result['map_baseline'])}  mAP of a ranking at random",
            f"macro AUROC  {result['auroc_macro']:.4f}",
        ]
    if "f1_macro" in result:
        lines.append(f"macro F1     {result['f1_macro']:.4f}  {_thresholds(result)}")
    lines += [
        f"micro F1     {result['f1_micro']:.4f}  {_thresholds(result)}",
        f"exact match  {_percent(result['exact_match'])}  images of which every class is right",
        f"top-1        {_percent(result['top1'])}  the most probable class is one of the image's;"
        f" {format_percent(result['baseline'], 2)} by always answering the most frequent one",
        f"loss         {result['loss']:.4f}",
        *(f"{title(name):12} {format_metric(name, result[name])}" for name in _own(evaluated)),
        "calibration  expected calibration error (ECE) of all images and classes"
        f" {format_percent(evaluation.ece, 2)}",
    ]
    ranked = [one for one in evaluation.classes if one.average_precision is not None]
    worst = sorted(
        (one for one in ranked if one.average_precision < 1), key=lambda one: one.average_precision
    )
    if worst:
        named = [
            f"{one.name}: {format_percent(one.average_precision)} (in"
            f" {pluralize(one.examples, 'image')})"
            for one in worst[:_SUMMARY_ITEMS]
        ]
        lines.append(f"lowest average precision {', '.join(named)}")
    return "\n".join(map(one_line, lines))


def _own(evaluated: Evaluated) -> list[str]:
    """Return the metrics that the configuration names beside the usual ones."""
    names = dict.fromkeys((*evaluated.config.eval.metrics, evaluated.config.eval.metric))
    usual = {"top1", "loss", *MULTI_LABEL_METRICS}
    return [name for name in names if name in evaluated.result and name not in usual]


def _percent(share: float) -> str:
    return f"{format_percent(share, 2):>8}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = (format_percent(end, 2) for end in interval)
    return f"  95 % confidence interval (bootstrap) {low} to {high}"


def _thresholds(result: dict[str, Any]) -> str:
    where = "stored thresholds" if "thresholds" in result else f"thresholds of {DEFAULT_THRESHOLD}"
    return f"at {where}"


def captions(evaluated: Evaluated, indices: np.ndarray) -> list[str]:
    """Return labels and predicted classes of some images as text."""
    predictions, names = evaluated.predictions, evaluated.loader.source.class_names
    probabilities = predictions.probabilities[indices]
    predicted = decide(probabilities, predictions.thresholds, len(names))
    texts = []
    for label, chosen, shares in zip(
        predictions.label[indices], predicted, probabilities, strict=True
    ):
        true = ", ".join(names[k] for k in np.flatnonzero(label)) or "no class"
        order = sorted(np.flatnonzero(chosen), key=lambda k: -shares[k])
        found = ", ".join(f"{names[k]} ({format_percent(shares[k], 0)})" for k in order)
        texts.append(
            f"true: {truncate(true, MAX_CAPTION)}\n"
            f"predicted: {truncate(found or 'no class', 2 * MAX_CAPTION)}"
        )
    return texts


def write_results(
    folder: str,
    evaluated: Evaluated,
    evaluation: MultiLabelEvaluation,
    warn: Callable[[str], None],
) -> list[str]:
    """Write ``evaluation.json`` and the charts; return the names of the files.

    If an image cannot be drawn, a warning is printed.

    Raises:
      RunError: the folder cannot be written.
    """
    mistakes, about = evaluation.mistakes, evaluation_results.subtitle(evaluated)
    texts = captions(evaluated, mistakes)
    drawings: dict[str, evaluation_results.Draw] = {
        "reliability.svg": lambda path: write_atomically(
            path,
            svg.document(reliability.reliability_panels(evaluation.bins, evaluation.ece), about),
        ),
        evaluation_results.RANKINGS: lambda path: evaluation_results.draw_rankings(
            path, evaluation.rankings(), about
        ),
        "mistakes.png": lambda path: evaluation_results.draw_mistakes(
            path,
            evaluated,
            mistakes,
            texts,
            round((1 - evaluated.result["exact_match"]) * evaluated.result["examples"]),
        ),
    }
    return evaluation_results.write_files(folder, to_dict(evaluated, evaluation), drawings, warn)


def to_dict(evaluated: Evaluated, evaluation: MultiLabelEvaluation) -> dict[str, Any]:
    """Return all results, for JSON."""
    predictions, source = evaluated.predictions, evaluated.loader.source
    return evaluated.result | {
        "task": evaluated.config.task,
        "dataset": source.name,
        "weights": evaluated.weights,
        **{f"{name}_interval": interval for name, interval in evaluation.intervals.items()},
        "expected_calibration_error": evaluation.ece,
        "reliability": [one._asdict() for one in evaluation.bins],
        "classes": [vars(one) for one in evaluation.classes],
        "most_confident_mistakes": [
            {"image": source.record_name(int(predictions.record[i]))} for i in evaluation.mistakes
        ],
    }
