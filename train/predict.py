"""Classify images: python -m train.predict --workdir DIR IMAGE_FOLDER_OR_TABLE… […]."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import tqdm

from flax_resnet.program import reader_is_gone
from flax_resnet.text import one_line
from train.reporting.prediction_lines import (
    CSV_HEADER,
    JOINED,
    Classes,
    Prediction,
    csv_lines,
    joined_header,
    json_lines,
    table_lines,
    text_lines,
)
from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    parse_step,
    run_command,
)
from train.runtime.errors import RunError, UsageError, note, print_error
from train.runtime.files import check_writable
from train.runtime.formatting import csv_row, pluralize
from train.runtime.host import core_count, max_images
from train.workdir.trained_run import load_trained_run

if TYPE_CHECKING:  # importing JAX takes a second
    import argparse

    import numpy as np

    from flax_resnet.runs import Run
    from train.data.sources.image_table import ImageTable
    from train.engine.feature_files import Features
    from train.reporting.calibration.answers import CalibratedAnswers, LabelAnswers

MAX_BATCH_SIZE = 32


def parse_flags() -> argparse.Namespace:
    """Return the flags; raise UsageError if they are invalid or exclude each other."""
    parser = Parser(
        "train.predict",
        description="Classify images with a trained run.",
        epilog="Files that cannot be read are reported and skipped; the exit status is then 1.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE_FOLDER_OR_TABLE",
        help="files and folders, with subfolders, or a .csv, .tsv or .parquet table of images",
    )
    topk = "classes per image; default: 5, with a table and --csv 1"
    parser.add_argument("--topk", type=int, metavar="N", help=topk)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per line")
    form.add_argument(
        "--csv",
        action="store_true",
        help=f"print {','.join(CSV_HEADER)}; with a table its columns and {','.join(JOINED)}",
    )
    folder = "folder to which the paths in a table are relative; default: its own"
    parser.add_argument("--data_dir", default="", metavar="DIR", help=folder)
    image_key = "column of the images in a table; default: detected"
    parser.add_argument("--image_key", default="", metavar="COLUMN", help=image_key)
    delimiter = "character between the columns of a CSV table, or tab; default: detected"
    parser.add_argument("--delimiter", default="", metavar="CHARACTER", help=delimiter)
    coverage = "also print a set of classes for each image, which holds the true one with this"
    coverage += " probability, such as 0.9; the checkpoint must be calibrated"
    parser.add_argument("--coverage", type=float, metavar="SHARE", help=coverage)
    features = "write the features before the head of each image, with its name: .npz or .parquet"
    parser.add_argument("--features", metavar="FILE", help=features)
    similar = "print the K most similar images of each image instead of classes: by the cosine of"
    similar += " their features, among the given images or those of --among"
    parser.add_argument("--similar", type=int, metavar="K", help=similar)
    among = "file of --features of this network, of train.predict or train.evaluate"
    parser.add_argument("--among", metavar="FILE", help=among)
    explain = "write Grad-CAM maps there: the regions that support the most probable class"
    parser.add_argument("--explain", metavar="DIR", help=explain)
    arguments = sys.argv[1:]
    if "--" in arguments:  # which parse_intermixed_args does not handle: what follows are files
        end = arguments.index("--")
        arguments[end:] = [os.path.join(".", file) for file in arguments[end + 1 :]]
    flags = parser.parse_intermixed_args(arguments)  # flags may stand between the files
    if flags.topk is not None and flags.topk < 1:
        raise UsageError(f"--topk must be at least 1, not {flags.topk}")
    if flags.coverage is not None and not 0 < flags.coverage < 1:
        raise UsageError(f"--coverage must be between 0 and 1, not {flags.coverage:g}")
    check_similar(flags)
    return flags


def main() -> int:
    """Run the command and return its exit status."""
    flags = parse_flags()
    step = parse_step(flags.step)
    table = open_table(flags)
    files = find_files(flags.images, flags.explain) if table is None else table.files
    if flags.similar is not None and flags.among is None and len({*files}) < 2:
        raise UsageError("--similar needs at least two images, or others in --among FILE")
    topk = flags.topk or (5 if table is None or not flags.csv else 1)

    run = load_trained_run(
        flags.workdir, step, flags.weights, min(MAX_BATCH_SIZE, len(files)), flags.trust_recipe
    )
    run.batch_size = min(run.batch_size, max_images(math.prod(run.preprocessing.shape[:2])))
    from train.reporting.calibration.answers import make_answers

    among = None if flags.among is None else read_among(flags.among, run)
    answers = make_answers(run, flags.coverage)
    for text in answers.notes:
        note(text)
    to_lines = json_lines if flags.json else csv_lines if flags.csv else text_lines
    header: Sequence[str] = (*CSV_HEADER, *answers.names)
    if table is not None:
        topk = min(topk, len(run.class_names))
        if flags.json or flags.csv:
            to_lines = table_lines(table, flags.json, topk, answers.names)
        header = joined_header(table.names, topk, answers.names)
    predictions: list[Prediction] = []
    with_features = flags.features is not None or flags.similar is not None
    failed = 0
    hidden = len(files) <= MAX_BATCH_SIZE or not sys.stderr.isatty()
    writes_files = flags.features is not None or flags.explain is not None
    with tqdm.tqdm(total=len(files), unit=" images", leave=False, disable=hidden) as bar:
        if flags.csv and flags.similar is None:
            bar.write(csv_row(header), sys.stdout)
        for prediction in predict_files(run, files, topk, flags.explain, answers, with_features):
            if prediction.error is not None:
                failed += 1
                bar.write(one_line(f"error: {prediction.error}"), sys.stderr)
            if with_features:
                predictions.append(prediction)
            for line in to_lines(prediction) if flags.similar is None else ():
                # JSON and text are printable; CSV has no escapes, so files get it as it is.
                bar.write(one_line(line) if sys.stdout.isatty() else line, sys.stdout)
            bar.update()
            if reader_is_gone(sys.stdout) and not writes_files:
                break
    if with_features:
        use_features(flags, run, predictions, table, among)
    if failed:
        print_error(f"{failed} of {pluralize(len(files), 'image')} failed")
    return 1 if failed else 0


def check_similar(flags: argparse.Namespace) -> None:
    """Raise UsageError if the flags of features are invalid or exclude others."""
    if flags.similar is not None and flags.similar < 1:
        raise UsageError(f"--similar must be at least 1, not {flags.similar}")
    if flags.among is not None and flags.similar is None:
        raise UsageError("--among needs --similar K")
    others = {"topk": flags.topk, "coverage": flags.coverage, "explain": flags.explain}
    given = [f"--{name}" for name, value in others.items() if value is not None]
    if flags.similar is not None and given:
        raise UsageError(
            f"--similar prints similar images instead of classes, so {given[0]} has no effect"
        )
    for name in ("features", "among"):
        if (path := getattr(flags, name)) is not None:
            from train.engine.feature_files import check_features_path

            check_features_path(path, f"--{name}")
    if flags.features is not None:
        check_writable(os.path.dirname(flags.features), flags.features)


def read_among(path: str, run: Run) -> Features:
    """Return the features of ``--among``; raise UsageError if they are of another network."""
    from train.engine.feature_files import check_network, read_features

    features = read_features(path, "--among")
    check_network(features, path, run)
    return features


def use_features(
    flags: argparse.Namespace,
    run: Run,
    predictions: Sequence[Prediction],
    table: ImageTable | None,
    among: Features | None,
) -> None:
    """Write the features of all images, and print similar images, as the flags say.

    Images with an error are left out; in the output of ``--similar`` they have that.
    """
    from train.engine.feature_files import write_features
    from train.reporting import similar_images

    features = collect_features(run, predictions, table)
    if flags.features is not None and features is not None:
        write_features(flags.features, features)
        size = features.features.shape[1]
        note(f"{flags.features} has {pluralize(len(features), 'image')}, {size} features each")
    if flags.similar is not None:
        errors = [(p.file, p.error) for p in predictions]
        form = "json" if flags.json else "csv" if flags.csv else "text"
        for line in similar_images.lines(errors, features, flags.similar, among, form):
            print(one_line(line) if sys.stdout.isatty() else line)


def collect_features(
    run: Run, predictions: Sequence[Prediction], table: ImageTable | None
) -> Features | None:
    """Return the features of the images without an error, with the columns of their table.

    None if there is no such image.
    """
    import numpy as np

    from train.engine.feature_files import Features, network_identity

    good = [i for i, prediction in enumerate(predictions) if prediction.error is None]
    if not good:
        return None
    columns = {} if table is None else table.columns
    return Features(
        [predictions[i].file for i in good],
        np.stack([predictions[i].features for i in good]),
        network_identity(run.path, run.step, run.weights),
        {name: [column[i] for i in good] for name, column in columns.items()},
    )


def open_table(flags: argparse.Namespace) -> ImageTable | None:
    """Return the table that the command line names, if it does.

    Raises:
      UsageError: there are flags of a table without one.
    """
    from train.data.sources.image_table import find_table, read_image_table

    path = find_table(flags.images)
    given = flags.data_dir, flags.image_key, flags.delimiter
    if path is not None:
        return read_image_table(path, *given)
    if any(given):
        raise UsageError("--data_dir, --image_key and --delimiter need a table of images")
    return None


def find_files(paths: Sequence[str], explain: str | None = None) -> list[str]:
    """Return the given files, and the images in the given folders; each once.

    Images in the folder ``explain`` are skipped, because the command writes its own there.

    Raises:
      RunError: a folder has no images or cannot be listed.
      UsageError: all images of a folder are in ``explain``.
    """
    from train.data.sources.image_folder import list_images

    skipped = explain and os.path.join(os.path.abspath(explain), "")
    files: dict[str, None] = {}
    for path in paths:
        images = [path]  # if a file cannot be read, that is reported later
        if os.path.isdir(path):
            images, others = list_images(path)
            if not images:
                found = "".join(f"; {text}" for text in others)
                raise RunError(f"{path!r} has no images, by the extensions of its files{found}")
            for text in others:
                note(f"{path}: {text}")
            if skipped:
                images = [f for f in images if not os.path.abspath(f).startswith(skipped)]
            if not images:
                raise UsageError(
                    f"all images in {path!r} are in the folder of --explain, which is skipped;"
                    " choose another folder for --explain"
                )
        files |= dict.fromkeys(images)
    return list(files)


def predict_files(
    run: Run,
    files: Sequence[str],
    topk: int,
    explain: str | None,
    answers: CalibratedAnswers | LabelAnswers | None = None,
    with_features: bool = False,
) -> Iterator[Prediction]:
    """Yield the predictions of files in order. Files are decoded ahead, in threads.

    Args:
      run: the trained run.
      files: image files.
      topk: number of classes.
      explain: folder for Grad-CAM images; None for none.
      answers: what the run adds to probabilities; None for nothing.
      with_features: whether predictions have features.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from train.data.prefetch import Prefetcher

    def read(file: str) -> np.ndarray | str:
        try:
            return run.prepare(file)[0]
        except ValueError as error:
            return str(error)

    blank = {} if answers is None else dict.fromkeys(answers.names, "")  # of files with an error
    explanations = None
    if explain is not None:
        from train.reporting.explanations import Explanations

        explanations = Explanations(explain, run)
    chunks = [files[i : i + run.batch_size] for i in range(0, len(files), run.batch_size)]
    with (
        ThreadPoolExecutor(core_count() + 2) as pool,
        Prefetcher(chunks, lambda chunk: (chunk, list(pool.map(read, chunk)))) as decoded,
    ):
        for chunk, squares in decoded:
            good = [square for square in squares if not isinstance(square, str)]
            if good:
                # Pad to the full batch size; a partial batch would trigger another compilation.
                stacked = np.resize(np.stack(good), (run.batch_size, *good[0].shape))
                features = [None] * run.batch_size
                if with_features:
                    logits, features = run.logits_and_features(stacked, prepared=True)
                else:
                    logits = run.logits(stacked, prepared=True)
                probabilities = np.asarray(run.probabilities(logits))
                heats = [None] * run.batch_size
                if explain is not None:
                    heats = run.explain(stacked, logits.argmax(axis=1), prepared=True)
                results = zip(logits, probabilities, heats, features, strict=True)
            for file, square in zip(chunk, squares, strict=True):
                if isinstance(square, str):
                    yield Prediction(file, [], square, blank)
                    continue
                file_logits, file_probabilities, heat, file_features = next(results)
                try:
                    if not np.isfinite(file_probabilities).all():
                        raise RunError("the output of the network is not finite")
                    classes = most_probable(run, file_logits, file_probabilities, topk)
                    if explanations is not None:
                        explanations.write(file, square, heat, classes)
                    more = {} if answers is None else answers.of(file_probabilities)
                    yield Prediction(file, classes, None, more, file_features)
                except RunError as error:
                    yield Prediction(file, [], f"{file}: {error}", blank)


def most_probable(run: Run, logits: np.ndarray, probabilities: np.ndarray, topk: int) -> Classes:
    """Return the ``topk`` most probable classes, or all if there are fewer.

    They are ordered by their logits, because several sigmoids may round to 1.
    """
    order = (-logits).argsort(kind="stable")[: min(topk, len(run.class_names))]
    return [(run.class_name(index), float(probabilities[index])) for index in order]


if __name__ == "__main__":
    run_command(main)
