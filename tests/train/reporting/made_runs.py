"""Workdirs without training: predictions of a classifier with errors, reported like real ones."""

import dataclasses
import os

import numpy as np

from tests.train.pictures import encode, photograph
from train.config.loading import default_config
from train.data.class_counts import count_classes_of
from train.data.loader import DataLoader
from train.data.skipped import Finding
from train.engine.evaluation import Evaluated
from train.reporting import evaluation_results, html_page
from train.reporting.report import run_report
from train.tasks.predictions import Predictions
from train.tasks.task import classification_metrics
from train.workdir import run_files
from train.workdir.metrics_log import MetricsLog
from train.workdir.session_ends import recorded_end

UNBALANCED = {
    **{"kind": "unbalanced", "count": 62, "examples": (), "is_warning": True},
    "text": "the classes are unbalanced; try class_weights='balanced'",
}


def draw_folder(root, names, counts, side=48, pictures=24):
    """Write images ``root/SPLIT/CLASS/N.jpg``, many of which are the same; return the folder."""
    encoded = root / "pictures"
    encoded.mkdir()
    for seed in range(pictures):
        (encoded / f"{seed}.jpg").write_bytes(encode(photograph(seed, side, side), "JPEG"))
    for split, factor in (("train", 2), ("val", 1)):
        for label, (name, count) in enumerate(zip(names, counts, strict=True)):
            folder = root / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count * factor):
                picture = encoded / f"{(label + number) % pictures}.jpg"
                os.link(picture, folder / f"{number}.jpg")
    return root / "images"


def predict(label, classes, skill, seed=0):
    """Return predictions of random logits, whose true class is ``skill`` larger."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(len(label), classes)).astype(np.float32)
    rows = np.arange(len(label))
    logits[rows, label] += skill
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    of_label, predicted = probabilities[rows, label], probabilities.argmax(axis=1)
    return Predictions(
        record=rows,
        label=label,
        predicted=predicted,
        rank=(probabilities > of_label[:, None]).sum(axis=1),
        confidence=probabilities[rows, predicted],
        outputs=classes,
        of_label=of_label,
        probabilities=probabilities,
        logits=logits,
    )


def make_run(root, names, counts, skill=3.0, seed=0, side=48):
    """Write a workdir with its data, metrics, evaluation and report; return its path.

    Args:
      root: an empty folder.
      names: of the classes.
      counts: evaluated images of each class.
      skill: how much larger the logit of the true class is.
      seed: of the predictions.
      side: of the images, in pixels.
    """
    config = default_config()
    config.dataset.name, config.dataset.eval_split = "folder", "val"
    config.dataset.data_dir = str(draw_folder(root, names, counts, side))
    config.dataset.image_size, config.seed, config.loader.cache_on_device = side, seed, "never"
    path = str(root / "run")
    run_files.create(path, config)
    train, evaluation = (DataLoader(config, split, training=False) for split in ("train", "val"))
    task = {"probabilities": "softmax", "several_labels": False}
    run_files.describe(path, config, train, evaluation, task)
    label = np.repeat(np.arange(len(names)), counts)
    with MetricsLog(path, 0) as log:
        for session in range(2):  # the first one was interrupted
            run_files.add_session(path, 50 * session, 100, 32)
            try:
                with recorded_end(path):
                    for step in range(50 * session + 10, 50 * session + 51, 10):
                        predictions = predict(label, len(names), skill * step / 100, seed)
                        log.write(row_of(step, predictions, max(counts) / sum(counts)))
                    if not session:
                        raise InterruptedError("SIGTERM after step 50")
            except InterruptedError:
                pass
    result = {"split": "val", "examples": len(label), "step": 100, "loss": 0.5}
    result |= {"top1": float(predictions.right.mean())}
    result |= classification_metrics(vars(predictions), len(names))
    evaluated = Evaluated(result, predictions, evaluation, config, None, None)
    metrics = evaluation_results.evaluation_metrics(evaluated)
    findings = [*count_classes_of(train.source, evaluation.source), Finding(**UNBALANCED)]
    cells = html_page.image_cells(evaluation.center_crops(np.arange(24)), names[:1] * 24)
    parts = {"samples": {"small": side < 64, "cells": cells}}
    parts["findings"] = list(map(dataclasses.asdict, findings))
    parts = run_report.add_evaluation(parts, evaluated, metrics)
    run_report.write_parts(path, parts)
    run_report.write_report(path)
    return path


def row_of(step, predictions, baseline):
    """Return a row of metrics of a step."""
    row = {"step": step, "epoch": step / 10, "train/loss": 3 / step, "train/top1": 1 - 3 / step}
    row |= {"learning_rate": 1.2e-6 * step, "images_per_second": 1234.5, "input_wait_fraction": 0.0}
    top1 = float(predictions.right.mean())
    return row | {"eval/top1": top1, "eval/loss": 4 / step, "eval/baseline": baseline}
