"""python -m train.evaluate --workdir DIR [--step last|best|N] [--split NAME] [--tta flip] […]"""

from __future__ import annotations

import argparse
import os

from train.runtime import distributed
from train.runtime.cli import Parser, add_checkpoint_flags, parse_step, run_command
from train.runtime.errors import RunError, UsageError, warn


def main() -> int:
    parser = Parser(
        "train.evaluate",
        description="Evaluates a run's checkpoint on its evaluation split, every image once. The"
        " last line is a JSON object.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument("--split", default="", help="other images of the run's data, as in config")
    parser.add_argument(
        "--dataset",
        default="",
        metavar="NAME",
        help="other data with the same classes: digits, folder or tfds:NAME",
    )
    parser.add_argument("--data_dir", default="", metavar="DIR", help="where these lie")
    parser.add_argument(
        "--tta",
        choices=("flip",),
        default="",
        help="take the mean of the logits of each image and its mirror image",
    )
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="write what was said of each image: .csv, or .npz with all probabilities",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where evaluation.json and pictures go; default: evaluation/ in the workdir",
    )
    distributed.add_flags(parser)
    flags = parser.parse_args()
    distributed.connect(flags)
    return distributed.run_collectively(lambda: run(flags))


def run(flags: argparse.Namespace) -> int:
    """Evaluates, once the processes have found each other."""
    step = parse_step(flags.step)
    if flags.output == "":
        raise UsageError("--output is empty; leave it out, or name a folder")
    if flags.output and os.path.exists(flags.output) and not os.path.isdir(flags.output):
        raise UsageError(f"--output must name a folder, and {flags.output!r} is a file")

    from train.data.tfds_source import resolve_data_dir
    from train.engine import predictions
    from train.engine.evaluation import OtherData, evaluate_run
    from train.runtime.files import check_writable
    from train.workdir.metrics_log import to_json

    if flags.predictions is not None:
        predictions.check_predictions_path(flags.predictions)
    with distributed.raise_if_any_failed():
        if distributed.is_primary():  # which writes
            if flags.output:
                check_writable(flags.output, flags.output)
            if flags.predictions:
                check_writable(os.path.dirname(flags.predictions), flags.predictions)
    ema = None if flags.weights is None else flags.weights == "ema"
    data_dir = flags.data_dir and resolve_data_dir(flags.data_dir)
    other = OtherData(flags.split, flags.dataset, data_dir)
    keep = flags.predictions is not None and flags.predictions.endswith(".npz")
    evaluated = evaluate_run(flags.workdir, step, ema, other, flags.tta, keep)
    if distributed.is_primary():
        tell(flags, evaluated)
        print(to_json(evaluated.result), flush=True)
    return 0


def tell(flags: argparse.Namespace, evaluated) -> None:
    """Prints the summary, and writes what there is to be written."""
    from train.engine import predictions
    from train.reporting import evaluation_results, run_report
    from train.runtime.files import writing

    scores = evaluation_results.score_of(evaluated)
    print(evaluation_results.summary(evaluated, scores), flush=True)
    if flags.predictions is not None:
        predictions.write_predictions(
            flags.predictions, evaluated.predictions, evaluated.loader.source
        )
        print(f"predictions  {flags.predictions}")
    folder = flags.output or evaluation_results.folder_of(flags.workdir, evaluated)
    try:
        written = evaluation_results.write(folder, evaluated, scores, warn)
        with writing(os.path.join(flags.output or flags.workdir, run_report.FILE)):
            parts = run_report.add_evaluation(run_report.read_parts(flags.workdir), evaluated)
            if flags.output is None:
                run_report.write_parts(flags.workdir, parts)
            run_report.write(flags.workdir, flags.output or "", parts)
    except RunError as error:
        if flags.output is not None:
            raise
        # A run that may only be read can be evaluated all the same.
        warn(f"{error}; --output takes another folder")
        return
    print(f"written      {os.path.join(folder, '')} {' '.join(written)}")
    print(f"report       {os.path.join(flags.output or flags.workdir, run_report.FILE)}")


if __name__ == "__main__":
    run_command(main)
