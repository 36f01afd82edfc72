"""What evaluation tells beside its one line: a summary, ``evaluation.json`` and pictures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from flax_resnet.files import write_atomically
from train.engine.evaluation import Evaluated
from train.engine.predictions import Predictions, output_names
from train.reporting import plots
from train.reporting.classification_metrics import Scores, score
from train.runtime.files import writing
from train.runtime.formatting import MAX_CAPTION, one_line, truncate
from train.tasks.classification import MIN_TOP5_CLASSES
from train.workdir.metrics_log import finite

FILE = "evaluation.json"
MOST_CLASSES = 1000  # whose confusion matrix is written in full
_TOLD = 5  # classes and confusions in the summary


def score_of(evaluated: Evaluated) -> Scores:
    """The scores of an evaluation's predictions."""
    names = list(evaluated.loader.source.class_names)
    return score(evaluated.predictions, names, top5=len(names) >= MIN_TOP5_CLASSES)


def folder_of(workdir: str, evaluated: Evaluated) -> str:
    """Where an evaluation is kept unless told: another folder for what is another evaluation."""
    result, config = evaluated.result, evaluated.config
    parts = [str(result["step"]), result["split"]]
    if "dataset" in result:
        folder = os.path.basename(config.dataset.data_dir.rstrip("/"))
        parts.append(folder if result["dataset"] == "folder" else result["dataset"])
    if config.ema.decay:
        parts.append(evaluated.weights)
    if "tta" in result:
        parts.append(result["tta"])
    name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
    if "dataset" in result or re.search(r"[^\w.-]", "".join(parts)):
        # Nor may what only looks the same, such as two folders called photos, take its place.
        place = config.dataset.data_dir if "dataset" in result else ""
        if place and "://" not in place:
            place = os.path.realpath(place)
        key = json.dumps([*parts, place])
        name += f"_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return os.path.join(workdir, "evaluation", name)


def summary(evaluated: Evaluated, scores: Scores) -> str:
    """A few lines for people."""
    result, split = evaluated.result, evaluated.loader
    source = f"{split.source.name} {split.source.split}"
    flipped = ", with mirror images" if result.get("tta") == "flip" else ""
    bad = f", {result['bad']} more unreadable" if "bad" in result else ""
    average = ", moving average" if evaluated.weights == "ema" else ""
    lines = [
        f"{source}: {result['examples']:,} images{bad}; step {result['step']}{average}{flipped}",
        f"top-1        {_share(result['top1'], scores.top1)}",
    ]
    if "top5" in result:
        lines.append(f"top-5        {_share(result['top5'], scores.top5)}")
    lines += [
        f"loss         {result['loss']:.4f}",
        f"calibration  {scores.confidence:.1%} sure on average and {result['top1']:.1%} right,"
        f" expected calibration error {scores.ece:.2%}",
    ]
    imperfect = [one for one in scores.classes if one.examples and one.accuracy < 1]
    if imperfect:
        worst = sorted(imperfect, key=lambda one: one.accuracy)[:_TOLD]
        told = ", ".join(f"{one_line(c.name)} {c.accuracy:.1%} of {c.examples:,}" for c in worst)
        lines.append(f"worst        {told}")
    if scores.confused:
        told = ", ".join(
            f"{one_line(c.label)} as {one_line(c.predicted)} ({c.examples:,})"
            for c in scores.confused[:_TOLD]
        )
        lines.append(f"mistaken     {told}")
    return "\n".join(lines)


def _share(share: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{share:7.2%}  (95 % interval {low:.2%} to {high:.2%})"


def write(
    folder: str, evaluated: Evaluated, scores: Scores, warn: Callable[[str], None]
) -> list[str]:
    """Writes ``evaluation.json`` and the pictures into ``folder``; gives their names.

    A picture that cannot be drawn is worth a warning. Raises RunError where the folder cannot be
    written.
    """
    predictions, outputs = evaluated.predictions, outputs_of(evaluated)
    text = json.dumps(finite(as_json(evaluated, scores)), indent=1, allow_nan=False)
    with writing(folder):
        os.makedirs(folder, exist_ok=True)

        def path(name: str) -> str:
            return os.path.join(folder, name)

        write_atomically(path(FILE), text + "\n")

        def draw_mistakes(place: str) -> None:
            images = evaluated.loader.center_crops(predictions.record[scores.mistakes])
            captions = captions_of(predictions, scores.mistakes, outputs)
            plots.draw_grid(place, images, captions, columns=6)

        drawings = {
            "confusion.png": lambda p: plots.draw_confusion(p, scores.confusion, outputs),
            "reliability.png": lambda p: plots.draw_reliability(p, scores.bins, scores.ece),
            "mistakes.png": draw_mistakes,
        }
        for name in drawings:
            with contextlib.suppress(FileNotFoundError):  # of an earlier evaluation
                os.unlink(path(name))
        pictures = plots.Plots(folder, warn)
        for name, draw in drawings.items():
            if name != "mistakes.png" or len(scores.mistakes):
                pictures.draw(name, draw)
        written = [FILE, *(name for name in drawings if os.path.exists(path(name)))]
    return written


def outputs_of(evaluated: Evaluated) -> list[str]:
    """The classes' names; outputs beyond these have numbers."""
    return output_names(evaluated.loader.source.class_names, evaluated.predictions.outputs)


def captions_of(predictions: Predictions, which: np.ndarray, names: list[str]) -> list[str]:
    """What some images are, and what was said of them."""
    return [
        f"is {truncate(names[predictions.label[i]], MAX_CAPTION)}\n"
        f"→ {truncate(names[predictions.predicted[i]], MAX_CAPTION)}"
        f" {predictions.confidence[i]:.0%}"
        for i in which
    ]


def as_json(evaluated: Evaluated, scores: Scores) -> dict[str, Any]:
    """Everything as JSON can hold it."""
    predictions, source = evaluated.predictions, evaluated.loader.source
    names = outputs_of(evaluated)
    content = dict(evaluated.result)
    content |= {"dataset": source.name, "weights": evaluated.weights}
    content |= {"top1_interval": scores.top1}
    if scores.top5 is not None:
        content["top5_interval"] = scores.top5
    content |= {
        "expected_calibration_error": scores.ece,
        "mean_confidence": scores.confidence,
        "reliability": [one._asdict() for one in scores.bins],
        "classes": [vars(one) for one in scores.classes],
        "most_confused": [one._asdict() for one in scores.confused],
        "most_confident_mistakes": [
            {
                "image": source.record_name(int(predictions.record[i])),
                "label": names[predictions.label[i]],
                "predicted": names[predictions.predicted[i]],
                "confidence": float(predictions.confidence[i]),
            }
            for i in scores.mistakes
        ],
    }
    if len(scores.confusion) <= MOST_CLASSES:
        content["confusion"] = scores.confusion.tolist()
    return content
