"""Classes of images: printed, with features, similar images and explanations."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from flax_resnet.text import one_line
from train.predict.engines import check_engine, make_forward
from train.predict.inputs import find_files
from train.predict.printing import exit_status, print_predictions
from train.reporting.prediction_lines import (
    CSV_HEADER,
    Classes,
    Prediction,
    csv_lines,
    joined_header,
    json_lines,
    table_lines,
    text_lines,
)
from train.runtime.errors import RunError, UsageError, note
from train.runtime.formatting import pluralize
from train.runtime.host import decoding_threads, max_images
from train.workdir.trained_run import load_trained_run

if TYPE_CHECKING:  # importing JAX takes a second
    import argparse

    import numpy as np

    from flax_resnet.runs import Run
    from train.data.sources.image_table import ImageTable
    from train.engine.feature_files import Features
    from train.predict.engines import Forward
    from train.reporting.calibration.answers import CalibratedAnswers, LabelAnswers

MAX_BATCH_SIZE = 32


def predict_classes(flags: argparse.Namespace, step: int | str) -> int:
    """Print the classes of images; return the exit status."""
    check_engine(flags)
    table = open_table(flags)
    outputs = {"--explain": flags.explain}
    files = find_files(flags.images, outputs) if table is None else table.files
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
    with_features = flags.features is not None or flags.similar is not None
    forward = make_forward(run, flags.engine, with_features)
    predictions = predict_files(run, files, topk, forward, flags.explain, answers)
    if with_features:
        collected: list[Prediction] = []
        predictions = collect(predictions, collected)
    failed = print_predictions(
        predictions,
        len(files),
        (lambda _: []) if flags.similar is not None else to_lines,
        header if flags.csv and flags.similar is None else None,
        writes_files=flags.features is not None or flags.explain is not None,
    )
    if with_features:
        use_features(flags, run, collected, table, among)
    return exit_status(failed, len(files))


def collect(predictions: Iterable[Prediction], into: list[Prediction]) -> Iterator[Prediction]:
    """Yield predictions, and append them to a list."""
    for prediction in predictions:
        into.append(prediction)
        yield prediction


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


def predict_files(
    run: Run,
    files: Sequence[str],
    topk: int,
    forward: Forward,
    explain: str | None,
    answers: CalibratedAnswers | LabelAnswers | None = None,
) -> Iterator[Prediction]:
    """Yield the predictions of files in order. Files are decoded ahead, in threads.

    Args:
      run: the trained run.
      files: image files.
      topk: number of classes.
      forward: computes logits and features.
      explain: folder for Grad-CAM images; None for none.
      answers: what the run adds to probabilities; None for nothing.
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
        ThreadPoolExecutor(decoding_threads()) as pool,
        Prefetcher(chunks, lambda chunk: (chunk, list(pool.map(read, chunk)))) as decoded,
    ):
        for chunk, squares in decoded:
            good = [square for square in squares if not isinstance(square, str)]
            if good:
                # Pad to the full batch size; a partial batch would trigger another compilation.
                stacked = np.resize(np.stack(good), (run.batch_size, *good[0].shape))
                logits, features = forward(stacked)
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
