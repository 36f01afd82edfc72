"""Classify images: python -m train.predict --workdir DIR IMAGE_FOLDER_OR_TABLE… […]."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import tqdm

from flax_resnet.text import one_line, truncate
from train.data.label_sets import SEPARATOR
from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    parse_step,
    run_command,
)
from train.runtime.errors import RunError, UsageError
from train.runtime.files import writing
from train.runtime.formatting import format_percent, pluralize
from train.runtime.host import core_count, max_images
from train.workdir.trained_run import load_trained_run

if TYPE_CHECKING:  # importing JAX takes a second
    import argparse

    import numpy as np

    from flax_resnet.runs import Run
    from train.data.sources.image_table import ImageTable
    from train.reporting.calibration.answers import CalibratedAnswers, LabelAnswers

MAX_BATCH_SIZE = 32
JOINED = ("predicted", "probability", "error")  # beside the columns of a table
CSV_HEADER = ("file", "rank", "class", "probability", "error")
_MAX_STEM_BYTES = 200
_Classes = list[tuple[str, float]]


class Prediction(NamedTuple):
    """The most probable classes of a file as ``(class, probability)``, or an error.

    ``answers`` has what the run adds: ``labels``, the classes of an image that may have several; or
    by its calibration ``decision``, a class or "" for none, and ``set``, the classes of the
    prediction set.
    """

    file: str
    classes: _Classes
    error: str | None = None
    answers: Mapping[str, Any] = MappingProxyType({})


def main() -> int:
    """Run the command and return its exit status."""
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
    step = parse_step(flags.step)
    table = open_table(flags)
    files = find_files(flags.images, flags.explain) if table is None else table.files
    topk = flags.topk or (5 if table is None or not flags.csv else 1)

    run = load_trained_run(
        flags.workdir, step, flags.weights, min(MAX_BATCH_SIZE, len(files)), flags.trust_recipe
    )
    run.batch_size = min(run.batch_size, max_images(math.prod(run.preprocessing.shape[:2])))
    from train.reporting.calibration.answers import make_answers

    answers = make_answers(run, flags.coverage)
    for note in answers.notes:
        print(one_line(f"note: {note}"), file=sys.stderr)
    to_lines = json_lines if flags.json else csv_lines if flags.csv else text_lines
    header: Sequence[str] = (*CSV_HEADER, *answers.names)
    if table is not None:
        topk = min(topk, len(run.class_names))
        if flags.json or flags.csv:
            to_lines = table_lines(table, flags.json, topk, answers.names)
        header = joined_header(table.names, topk, answers.names)
    failed = 0
    hidden = len(files) <= MAX_BATCH_SIZE or not sys.stderr.isatty()
    with tqdm.tqdm(total=len(files), unit=" images", leave=False, disable=hidden) as bar:
        if flags.csv:
            bar.write(csv_row(header), sys.stdout)
        for prediction in predict_files(run, files, topk, flags.explain, answers):
            if prediction.error is not None:
                failed += 1
                bar.write(one_line(f"error: {prediction.error}"), sys.stderr)
            for line in to_lines(prediction):
                # JSON and text are printable; CSV has no escapes, so files get it as it is.
                bar.write(one_line(line) if sys.stdout.isatty() else line, sys.stdout)
            bar.update()
    if failed:
        print(f"error: {failed} of {pluralize(len(files), 'image')} failed", file=sys.stderr)
    return 1 if failed else 0


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
                print(f"note: {one_line(path)}: {text}", file=sys.stderr)
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
) -> Iterator[Prediction]:
    """Yield the predictions of files in order. Files are decoded ahead, in threads.

    Args:
      run: the trained run.
      files: image files.
      topk: number of classes.
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
    explanations = None if explain is None else Explanations(explain)
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
                logits = run.logits(stacked, prepared=True)
                probabilities = np.asarray(run.probabilities(logits))
                heats = [None] * run.batch_size
                if explain is not None:
                    heats = run.explain(stacked, logits.argmax(axis=1), prepared=True)
                results = zip(logits, probabilities, heats, strict=True)
            for file, square in zip(chunk, squares, strict=True):
                if isinstance(square, str):
                    yield Prediction(file, [], square, blank)
                    continue
                file_logits, file_probabilities, heat = next(results)
                try:
                    if not np.isfinite(file_probabilities).all():
                        raise RunError("the output of the network is not finite")
                    classes = most_probable(run, file_logits, file_probabilities, topk)
                    if explanations is not None:
                        explanations.write(file, square, heat, classes)
                    more = {} if answers is None else answers.of(file_probabilities)
                    yield Prediction(file, classes, answers=more)
                except RunError as error:
                    yield Prediction(file, [], f"{file}: {error}", blank)


def most_probable(run: Run, logits: np.ndarray, probabilities: np.ndarray, topk: int) -> _Classes:
    """Return the ``topk`` most probable classes, or all if there are fewer.

    They are ordered by their logits, because several sigmoids may round to 1.
    """
    order = (-logits).argsort(kind="stable")[: min(topk, len(run.class_names))]
    return [(run.class_name(index), float(probabilities[index])) for index in order]


class Explanations:
    """A folder of Grad-CAM images with the names of the classified files."""

    def __init__(self, folder: str):
        self._folder = folder
        self._names: set[str] = set()
        with writing(folder):
            os.makedirs(folder, exist_ok=True)

    def write(self, file: str, square: np.ndarray, heat: np.ndarray, classes: _Classes) -> None:
        """Write an image; further files of the same name get a number."""
        from flax_resnet.preprocessing import to_viewable
        from train.reporting.plots import draw_explanation

        stem = os.path.splitext(os.path.basename(file))[0]
        # A name has at most 255 bytes, with the number, extension and suffix of a partial file.
        encoded = os.fsencode(stem)
        if len(encoded) > _MAX_STEM_BYTES:
            stem = encoded[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in names if name.casefold() not in self._names)
        self._names.add(name.casefold())
        title = os.fsencode(os.path.basename(file)).decode("utf-8", "replace")
        best = ", ".join(f"{truncate(c, 30)} {format_percent(share)}" for c, share in classes[:2])
        path = os.path.join(self._folder, f"{name}.png")
        with writing(path):
            draw_explanation(path, to_viewable(square), heat, f"{truncate(title, 50)}\n{best}")


def text_lines(prediction: Prediction) -> list[str]:
    """Return one line of text, or none for an error."""
    if prediction.error is not None:
        return []
    classes = ", ".join(f"{name} {format_percent(share)}" for name, share in prediction.classes)
    more = "".join(
        f"; {name}: {(', '.join(value) if isinstance(value, list) else value) or 'none'}"
        for name, value in prediction.answers.items()
    )
    return [one_line(f"{prediction.file}: {classes}{more}")]


def json_lines(prediction: Prediction, columns: dict[str, str] | None = None) -> list[str]:
    """Return one line with a JSON object: ``file`` and ``classes``, or ``file`` and ``error``.

    With ``columns``, of a row of a table, it has these as well.
    """
    classes = [{"class": name, "probability": p} for name, p in prediction.classes]
    result = {"classes": classes} if prediction.error is None else {"error": prediction.error}
    result |= prediction.answers if prediction.error is None else {}
    result |= {} if columns is None else {"columns": columns}
    text = json.dumps({"file": prediction.file} | result, ensure_ascii=False, allow_nan=False)
    # JSON's own escapes, so that a terminal is safe and the names are not changed.
    return ["".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)]


def csv_lines(prediction: Prediction) -> list[str]:
    """Return one CSV row per class, or one with the error."""
    if prediction.error is not None:
        return [csv_row((prediction.file, "", "", "", prediction.error, *csv_answers(prediction)))]
    return [
        csv_row((prediction.file, rank, name, f"{probability:.7g}", "", *csv_answers(prediction)))
        for rank, (name, probability) in enumerate(prediction.classes, 1)
    ]


def csv_answers(prediction: Prediction) -> list[str]:
    """Return the columns of ``prediction.answers``; several classes are joined by ``|``."""
    return [SEPARATOR.join(v) if isinstance(v, list) else v for v in prediction.answers.values()]


def joined_header(names: Sequence[str], topk: int, answers: Sequence[str] = ()) -> list[str]:
    """Return the names of a table's columns, and of those with its predictions, all different."""
    header = list(names)
    *columns, error = JOINED
    numbers = ("", *(f"_{rank}" for rank in range(2, topk + 1)))
    predicted = (f"{name}{number}" for number in numbers for name in columns)
    for name in (*predicted, *answers, error):
        while name in header:
            name = f"run_{name}"
        header.append(name)
    return header


def table_lines(
    table: ImageTable, as_json: bool, topk: int, answers: Sequence[str] = ()
) -> Callable[[Prediction], list[str]]:
    """Return a function that joins predictions, in order, to the rows of a table."""
    rows = itertools.count()

    def join(prediction: Prediction) -> list[str]:
        row = table.row(next(rows))
        if as_json:
            return json_lines(prediction, dict(zip(table.names, row, strict=True)))
        fields = [
            x for name, probability in prediction.classes for x in (name, f"{probability:.7g}")
        ]
        fields += csv_answers(prediction)
        missing = [""] * (2 * topk + len(answers) - len(fields))
        return [csv_row((*row, *fields, *missing, prediction.error or ""))]

    return join


def csv_row(fields: Sequence[object]) -> str:
    """Return a CSV row without its line end."""
    buffer = io.StringIO(newline="")
    # With lineterminator="" Python 3.11 would not quote fields that contain line breaks.
    csv.writer(buffer, lineterminator="\n").writerow(fields)
    return buffer.getvalue().removesuffix("\n")


if __name__ == "__main__":
    run_command(main)
