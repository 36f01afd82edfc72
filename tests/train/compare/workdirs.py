"""Workdirs of runs that were never trained: their files, with predictions of choice."""

import json
from types import SimpleNamespace

import numpy as np

from train.config.loading import default_config
from train.engine import stored_predictions
from train.tasks.predictions import Predictions
from train.workdir import run_files

CLASSES = ("cat", "dog", "owl")
PREPROCESSING = {
    **{"resize": 8, "image_size": 8, "interpolation": "bilinear"},
    **{"mean": [0.5] * 3, "std": [0.5] * 3, "bits": 8},
}


def write_run(
    path,
    values=(),
    top1=(0.5, 0.6),
    steps=None,
    classes=CLASSES,
    images=("val", 60),
    results=None,
    several=False,
    fingerprint="",
    trained=(100, ""),
    kind=None,
):
    """Write the files of a run of one step per epoch; return its path as text.

    Args:
      path: the workdir.
      values: keys of the configuration.
      top1: accuracy after each epoch; None for epochs that only train.
      steps: planned number of steps; default: all have been done.
      classes: class names.
      images: name and size of the evaluation split.
      results: further results of every evaluation.
      several: whether an image may have several classes.
      fingerprint: of the evaluated images.
      trained: number and fingerprint of the training images.
      kind: of the outputs.
    """
    config = default_config()
    config.dataset.name = "folder"
    config.dataset.eval_split = images[0]
    config.eval.metric = "top1"
    config.update_from_flattened_dict(dict(values))
    path.mkdir(parents=True)
    run_files.create(str(path), config)
    info = {
        "model": "resnet18",
        "class_names": list(classes),
        "probabilities": "sigmoid" if several else "softmax",
        "several_labels": several,
        "best_by": run_files.best_by(config)._asdict(),
        "preprocessing": PREPROCESSING,
        "images": {"train": trained[0], images[0]: images[1]},
        "records": {k: v for k, v in {"train": trained[1], images[0]: fingerprint}.items() if v},
        "versions": {},
    }
    info |= {"kind": kind} if kind else {}
    (path / "run.json").write_text(json.dumps(info))
    rows = []
    for step, value in enumerate(top1, 1):
        row = {"step": step, "epoch": float(step), "train/loss": 1 / step, "images_per_second": 9.0}
        if value is not None:
            row |= {"eval/top1": value, "eval/loss": 1 - value, "eval/baseline": 0.4}
            row |= results or {}
        rows.append(json.dumps(row) + "\n")
    (path / "metrics.jsonl").write_text("".join(rows))
    run_files.add_session(str(path), 0, steps or len(top1), 64)
    return str(path)


def write_predictions(path, label, predicted, names, step=2, confidence=None, thresholds=None):
    """Store predictions in a workdir, as the trainer does.

    Labels and predictions ``(N,)`` are classes; labels ``(N, K)`` are zeros and ones, and
    ``predicted`` their probabilities.
    """
    label, predicted = np.asarray(label), np.asarray(predicted)
    several = label.ndim == 2
    answers = predicted.argmax(axis=1) if several else predicted
    predictions = Predictions(
        record=np.arange(len(label)),
        label=label,
        predicted=answers,
        rank=np.zeros(len(label), int),
        confidence=np.full(len(label), 0.75) if confidence is None else np.asarray(confidence),
        outputs=len(CLASSES),
        probabilities=predicted if several else None,
        thresholds=thresholds,
    )
    source = SimpleNamespace(record_name=lambda index: names[index])
    assert stored_predictions.store(str(path), step, predictions, source)
