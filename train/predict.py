"""python -m train.predict --workdir DIR IMAGE_OR_FOLDER… [--topk N] [--json|--csv] [--explain D]"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    load_trained_run,
    parse_step,
    run_command,
)
from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import one_line, truncate

if TYPE_CHECKING:  # the others import JAX, which takes a second
    import numpy as np

    from flax_resnet.runs import Run

MOST_TOGETHER = 32
_LONGEST_STEM = 200  # bytes


class Answer(NamedTuple):
    """What is said of one file: ``(class, probability)``, the most probable first, or an error."""

    file: str
    classes: list[tuple[str, float]]
    error: str | None = None


def main() -> int:
    parser = Parser(
        "train.predict",
        description="Says what a run's network sees in pictures.",
        epilog="A file that cannot be read is named and passed over; the status is then 1.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE_OR_FOLDER", help="files, and folders at any depth"
    )
    parser.add_argument(
        "--topk", type=int, default=5, metavar="N", help="classes to tell of each; default: 5"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line")
    form.add_argument("--csv", action="store_true", help="file,rank,class,probability,error")
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write a picture of each there that shows what speaks for its class (Grad-CAM)",
    )
    # Also where flags stand between the files.
    flags = parser.parse_intermixed_args()
    if flags.topk < 1:
        raise UsageError(f"--topk must be at least 1, not {flags.topk}")
    step = parse_step(flags.step)
    files = find_files(flags.images, flags.explain)

    run = load_trained_run(flags.workdir, step, flags.weights, min(MOST_TOGETHER, len(files)))
    tell = {(True, False): as_json, (False, True): as_csv}.get((flags.json, flags.csv), as_text)()
    bad = 0
    with Bar(len(files)) as bar:
        for answer in answers(run, files, flags.topk, flags.explain):
            if answer.error is not None:
                bad += 1
                bar.say(one_line(f"error: {answer.error}"), sys.stderr)
            for line in tell(answer):
                bar.say(line, sys.stdout)
            bar.update()
    if bad:
        pictures = "picture" if len(files) == 1 else "pictures"
        print(f"error: {bad} of {len(files)} {pictures} failed", file=sys.stderr)
    return 1 if bad else 0


def find_files(places: Sequence[str], explain: str | None = None) -> list[str]:
    """The files that are named, and the pictures in the folders that are; each once.

    What was written to ``explain`` is passed over. Raises RunError for a folder without any
    pictures, and UsageError for one that has none but there.
    """
    from train.data.image_folder import list_images

    own = None if explain is None else os.path.join(os.path.abspath(explain), "")
    files: dict[str, None] = {}
    for place in places:
        if not os.path.isdir(place):
            files[place] = None  # whatever is wrong with it shows when it is read
            continue
        try:
            found = sorted(list_images(place, dangling=True))
        except OSError as error:
            raise RunError(f"cannot list {error.filename!r}: {error.strerror}") from error
        others = [f for f in found if own is None or not os.path.abspath(f).startswith(own)]
        if found and not others:
            raise UsageError(
                f"all pictures in {place!r} lie in the folder of --explain, whose own are passed"
                " over; name another for --explain"
            )
        found = others
        if not found:
            raise RunError(f"{place!r} has no pictures; files count by the ending of their names")
        files |= dict.fromkeys(found)
    return list(files)


def answers(run: Run, files: Sequence[str], topk: int, explain: str | None) -> Iterator[Answer]:
    """What the run says of each file, in order. Files are decoded ahead, in threads.

    Where ``explain`` names a folder a picture of each is written there.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from train.data.prefetch import Prefetcher
    from train.runtime.host import core_count

    def read(file: str) -> np.ndarray | str:
        try:
            return run.prepare(file)[0]
        except ValueError as error:
            return str(error)

    pictures = None if explain is None else Explanations(explain)
    chunks = [files[i : i + run.batch_size] for i in range(0, len(files), run.batch_size)]
    with (
        ThreadPoolExecutor(core_count() + 2) as pool,
        Prefetcher(chunks, lambda chunk: (chunk, list(pool.map(read, chunk)))) as decoded,
    ):
        for chunk, squares in decoded:
            good = [square for square in squares if not isinstance(square, str)]
            if good:
                # Filled up, or for a lone one another program would be compiled.
                stacked = np.resize(np.stack(good), (run.batch_size, *good[0].shape))
                logits = run.logits(stacked, prepared=True)
                probabilities = np.asarray(run.probabilities(logits))
                heats = [None] * run.batch_size
                if pictures is not None:
                    heats = run.explain(stacked, logits.argmax(axis=1), prepared=True)
                told = zip(logits, probabilities, heats, strict=True)
            for file, square in zip(chunk, squares, strict=True):
                if isinstance(square, str):
                    yield Answer(file, [], square)
                    continue
                of_file, probable, heat = next(told)
                if not np.isfinite(probable).all():
                    yield Answer(file, [], f"{file}: the network gives what is no number")
                    continue
                classes = most_probable(run, of_file, probable, topk)
                try:
                    if pictures is not None:
                        pictures.write(file, square, heat, classes)
                except RunError as error:
                    yield Answer(file, [], f"{file}: {error}")
                    continue
                yield Answer(file, classes)


def most_probable(
    run: Run, logits: np.ndarray, probabilities: np.ndarray, topk: int
) -> list[tuple[str, float]]:
    """The ``topk`` most probable classes, at most as many as there are; of equals the first.

    By the logits, since of several sigmoids that round to 1 each would be as good.
    """
    order = (-logits).argsort(kind="stable")[: min(topk, len(run.class_names))]
    return [(run.class_name(index), float(probabilities[index])) for index in order]


class Explanations:
    """Grad-CAM's pictures in a folder, each called as its file."""

    def __init__(self, folder: str):
        from train.runtime.files import writing

        self._folder = folder
        self._names: set[str] = set()
        with writing(folder):
            os.makedirs(folder, exist_ok=True)

    def write(
        self, file: str, square: np.ndarray, heat: np.ndarray, classes: list[tuple[str, float]]
    ) -> None:
        """Writes one; of files with the same name the later ones get a number."""
        from train.reporting.plots import draw_explanation
        from train.runtime.files import writing

        stem = os.path.splitext(os.path.basename(file))[0]
        # A name may have 255 bytes, with the number, the ending and what is added while writing.
        encoded = os.fsencode(stem)
        if len(encoded) > _LONGEST_STEM:
            stem = encoded[:_LONGEST_STEM].decode("utf-8", "ignore")
        name, number = stem, 1
        while name.casefold() in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name.casefold())
        told = ", ".join(f"{truncate(c, 30)} {probability:.1%}" for c, probability in classes[:2])
        called = os.fsencode(os.path.basename(file)).decode("utf-8", "replace")
        place = os.path.join(self._folder, f"{name}.png")
        with writing(place):
            draw_explanation(place, square, heat, f"{truncate(called, 50)}\n{told}")


def as_text() -> Callable[[Answer], list[str]]:
    """A line a file, for people."""

    def tell(answer: Answer) -> list[str]:
        told = ", ".join(f"{name} {probability:.1%}" for name, probability in answer.classes)
        return [] if answer.error is not None else [one_line(f"{answer.file}: {told}")]

    return tell


def as_json() -> Callable[[Answer], list[str]]:
    """A JSON object a line and file: ``file`` and ``classes``, or ``error``."""

    def tell(answer: Answer) -> list[str]:
        row: dict[str, Any] = {"file": answer.file}
        if answer.error is not None:
            row["error"] = answer.error
        else:
            row["classes"] = [{"class": name, "probability": p} for name, p in answer.classes]
        return [json.dumps(row, ensure_ascii=False, allow_nan=False)]

    return tell


def as_csv() -> Callable[[Answer], list[str]]:
    """A header, and a row a file and class."""
    lines: list[str] = []

    class Lines:
        write = staticmethod(lines.append)

    # With "" Python 3.11 would not put what has a line end of its own between quotes.
    writer = csv.writer(Lines, lineterminator="\n")
    writer.writerow(("file", "rank", "class", "probability", "error"))

    def tell(answer: Answer) -> list[str]:
        for rank, (name, probability) in enumerate(answer.classes, 1):
            writer.writerow((answer.file, rank, name, f"{probability:.7g}", ""))
        if answer.error is not None:
            writer.writerow((answer.file, "", "", "", answer.error))
        told = [line.removesuffix("\n") for line in lines]
        lines.clear()
        return told

    return tell


class Bar:
    """A progress bar on a terminal, where there is more than a batch to do."""

    def __init__(self, files: int):
        import tqdm

        hidden = files <= MOST_TOGETHER or not sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=files, unit=" images", leave=False, disable=hidden)

    def say(self, line: str, file: Any) -> None:
        """Prints a line above the bar."""
        self._bar.write(line, file=file)

    def update(self) -> None:
        """One more is done."""
        self._bar.update()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()


if __name__ == "__main__":
    run_command(main)
