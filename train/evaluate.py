"""Evaluate a run: python -m train.evaluate --workdir DIR [--step last|best|N] […]."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from train.runtime import distributed
from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    add_view_flags,
    parse_scales,
    parse_step,
    run_command,
)
from train.runtime.errors import RunError, UsageError, print_line, warn
from train.runtime.files import check_writable, writing
from train.runtime.formatting import join_names

if TYPE_CHECKING:  # these import JAX, which takes a second
    from train.engine.evaluation import Evaluated
    from train.reporting.calibration.results import CalibrationResults
    from train.tasks.decisions import DecisionRequest


def main() -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "train.evaluate",
        description="Evaluate a checkpoint of a run on its evaluation split; every image counts"
        " exactly once. The last line of the output is a JSON object.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument("--split", default="", help="another split of the run's data set")
    dataset = "another data set with the same classes, as config.dataset.name"
    parser.add_argument("--dataset", default="", metavar="NAME", help=dataset)
    parser.add_argument("--data_dir", default="", metavar="DIR", help="folder of that data set")
    labels = "table of the labels of that data set, as config.dataset.labels"
    parser.add_argument("--labels", default="", metavar="FILE", help=labels)
    add_view_flags(parser, "the logits of images or ")
    window = "of networks with outputs of every pixel: evaluate images larger than"
    window += " dataset.image_size at their own size in overlapping windows, instead of shrinking"
    parser.add_argument("--window", action="store_true", help=f"{window} them")
    predictions = "write the prediction of each image: .csv, or .npz with all probabilities; of"
    predictions += " pixels the IoU in each image, or the counts of its pixels"
    parser.add_argument("--predictions", metavar="FILE", help=predictions)
    features = "write the features before the head of each image, with its name and label: .npz"
    features += " or .parquet"
    parser.add_argument("--features", metavar="FILE", help=features)
    calibrate = "fit a temperature on half of the images, measure it on the others, and store it;"
    calibrate += " if images may have several classes, also the threshold of each with the best F1"
    parser.add_argument("--calibrate", action="store_true", help=calibrate)
    parser.add_argument(
        "--decide",
        action="append",
        default=[],
        metavar="CLASS=THRESHOLD",
        help="store the probability from which on images are decided to be of a class, or the one"
        " that reaches CLASS:recall=SHARE or CLASS:precision=SHARE; repeat it for other classes",
    )
    output = "folder of evaluation.json, charts and report; default: in the workdir"
    parser.add_argument("--output", metavar="DIR", help=output)
    distributed.add_flags(parser)
    flags = parser.parse_args()
    distributed.connect(flags)
    return distributed.run_collectively(lambda: run(flags))


def run(flags: argparse.Namespace) -> int:
    """Evaluate, after all processes have connected."""
    step, scales = parse_step(flags.step), parse_scales(flags.scales)
    if flags.output == "":
        raise UsageError("--output is empty; omit it, or name a folder")
    if flags.output and os.path.exists(flags.output) and not os.path.isdir(flags.output):
        raise UsageError(f"--output must be a folder, but {flags.output!r} is a file")
    requests = parse_decisions(flags.decide)
    fits = flags.calibrate or bool(requests)
    if fits and flags.tta:
        raise UsageError(
            "--calibrate and --decide cannot be combined with --tta, which predict lacks"
        )

    from train.data.datasets import resolve_data_dir, resolve_path
    from train.engine import feature_files, predictions
    from train.engine.other_data import OtherData
    from train.engine.run_evaluation import EvaluationOptions, evaluate_run
    from train.reporting.calibration.results import calibrate
    from train.workdir.metrics_log import to_json
    from train.workdir.run_files import read_description
    from train.workdir.trained_run import use_recipe

    if flags.predictions is not None:
        predictions.check_predictions_path(flags.predictions)
    if flags.features is not None:
        feature_files.check_features_path(flags.features)
    with distributed.raise_if_any_failed():
        if distributed.is_primary():  # only this process writes
            if flags.output:
                check_writable(flags.output, flags.output)
            if fits:
                check_writable(flags.workdir, f"the workdir {flags.workdir!r}")
            for file in filter(None, (flags.predictions, flags.features)):
                check_writable(os.path.dirname(file), file)
    data_dir = flags.data_dir and resolve_data_dir(flags.data_dir)
    labels = flags.labels and resolve_path(flags.labels)
    other = OtherData(flags.split, flags.dataset, data_dir, labels)
    keep = flags.predictions is not None and flags.predictions.endswith(".npz")
    with distributed.raise_if_any_failed():
        use_recipe(flags.workdir, flags.trust_recipe)
        if requests:
            check_classes(requests, read_description(flags.workdir).class_names)
    options = EvaluationOptions(
        ema=None if flags.weights is None else flags.weights == "ema",
        tta=flags.tta,
        scales=scales,
        window=flags.window,
        use_thresholds=not fits,  # those that are about to be replaced do not matter
        keep_probabilities=keep,
        keep_logits=fits,
        keep_features=flags.features is not None,
    )
    evaluated = evaluate_run(flags.workdir, step, options, other)
    calibration = None
    with distributed.raise_if_any_failed():
        if fits and distributed.is_primary():
            calibration = calibrate(flags.workdir, evaluated, flags.calibrate, requests)
            evaluated.result["calibration"] = calibration.measured
            evaluated = dataclasses.replace(evaluated, calibration=calibration.calibration)
    if distributed.is_primary():
        report(flags, evaluated, calibration)
        print(to_json(evaluated.result), flush=True)
    return 0


def parse_decisions(texts: Sequence[str]) -> list[DecisionRequest]:
    """Return the requests of ``--decide``; raise UsageError if one is invalid or repeated."""
    from train.tasks.decisions import parse_decision

    requests = [parse_decision(text) for text in texts]
    names = [request.name for request in requests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--decide has two thresholds for {name!r}")
    return requests


def check_classes(requests: Sequence[DecisionRequest], names: Sequence[str]) -> None:
    """Raise UsageError if ``--decide`` names a class that the run does not have."""
    for request in requests:
        if request.name not in names:
            raise UsageError(
                f"--decide: the run has no class {request.name!r}; it has {join_names(names)}"
            )


def report(
    flags: argparse.Namespace, evaluated: Evaluated, calibration: CalibrationResults | None
) -> None:
    """Print the summary, and write predictions, results and the report."""
    from train.engine import feature_files, predictions
    from train.reporting import evaluation_results
    from train.reporting.report import run_report
    from train.reporting.task_reports import task_report

    of_task = task_report(evaluated)
    metrics = of_task.compute(evaluated)
    print(of_task.summary(evaluated, metrics), flush=True)
    for text in of_task.cautions(evaluated.result, metrics):
        warn(text)
    if calibration is not None:
        for line in calibration.lines:
            print_line(line)
        for text in calibration.warnings:
            warn(text)
        print_line(f"stored       {calibration.store(flags.workdir)}")
    if flags.predictions is not None:
        source = evaluated.loader.source
        predictions.write_predictions(
            flags.predictions, evaluated.predictions, source, of_task.rows
        )
        print_line(f"predictions  {flags.predictions}")
    if flags.features is not None:
        step = evaluated.result["step"]
        network = feature_files.network_identity(flags.workdir, step, evaluated.weights)
        source = evaluated.loader.source
        feature_files.write_features(
            flags.features,
            feature_files.features_of_split(evaluated.predictions, source, network),
        )
        print_line(f"features     {flags.features}")
    folder = flags.output or evaluation_results.default_folder(flags.workdir, evaluated)
    report_file = os.path.join(flags.output or flags.workdir, run_report.FILE)
    try:
        written = of_task.write_results(folder, evaluated, metrics, warn)
        with writing(report_file):
            parts = run_report.read_parts(flags.workdir, warn)
            parts = run_report.add_evaluation(parts, evaluated, metrics)
            if flags.output is None:
                run_report.write_parts(flags.workdir, parts)
            run_report.write_report(flags.workdir, flags.output or "", parts, warn)
        if repeats_last_evaluation(flags):
            source, step = evaluated.loader.source, evaluated.result["step"]
            of_task.store(flags.workdir, step, evaluated.predictions, source)
    except RunError as error:
        if flags.output is not None:
            raise
        warn(f"{error}; choose another folder with --output")  # of a read-only workdir
        return
    print_line(f"written      {os.path.join(folder, '')} {' '.join(written)}")
    print_line(f"report       {report_file}")


def repeats_last_evaluation(flags: argparse.Namespace) -> bool:
    """Return whether the run is evaluated as at the end of its training, but by thresholds."""
    others = flags.split, flags.dataset, flags.data_dir, flags.labels, flags.weights
    views = flags.tta, flags.scales, flags.window
    changes = *others, *views, flags.output, flags.calibrate, flags.decide
    return flags.step == "last" and not any(changes)


if __name__ == "__main__":
    run_command(main)
