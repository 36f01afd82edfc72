"""The predictions of two runs for the same images."""

import os
import shlex
from dataclasses import dataclass

import numpy as np

from train.compare.runs import RunSummary
from train.engine import stored_predictions
from train.engine.stored_predictions import StoredPredictions
from train.runtime.errors import RunError
from train.workdir import run_files


@dataclass(frozen=True)
class PairedPredictions:
    """Predictions of two runs; entry i of both is of the same image.

    Attributes:
      names: names of the two runs.
      paths: their workdirs.
      class_names: the classes of both.
      metric: ``eval.metric`` of the second run.
      first, second: their predictions.
    """

    names: tuple[str, str]
    paths: tuple[str, str]
    class_names: tuple[str, ...]
    metric: str
    first: StoredPredictions
    second: StoredPredictions

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes."""
        return self.first.several_labels

    def __len__(self) -> int:
        return len(self.first)


def pair_predictions(first: RunSummary, second: RunSummary) -> PairedPredictions:
    """Return the predictions of the last evaluations of two runs.

    Raises:
      RunError: one of them has none, or they are of other images, labels or classes.
    """
    infos = [run_files.read_description(run.path) for run in (first, second)]
    several = [
        info.has_several_labels(run.values.get("task"))
        for info, run in zip(infos, (first, second), strict=True)
    ]
    if infos[0].class_names != infos[1].class_names or several[0] != several[1]:
        raise RunError(f"{first.name} and {second.name} have different classes")
    classes = len(infos[0].class_names)
    a, b = (_read(run, classes, several[0]) for run in (first, second))
    b = _in_order(a, b, first, second)
    return PairedPredictions(
        (first.name, second.name),
        (first.path, second.path),
        infos[0].class_names,
        second.metric,
        a,
        b,
    )


def _read(run: RunSummary, classes: int, several: bool) -> StoredPredictions:
    command = f"python -m train.evaluate --workdir {shlex.quote(run.path)}"
    try:
        stored = stored_predictions.read(run.path, classes, several)
    except RunError as error:
        raise RunError(f"{error}; {command} writes it again") from error
    if stored is None:
        raise RunError(
            f"{run.name} has no {stored_predictions.FILE} (an unfinished run, one of an earlier"
            f" version, or one with too many images); {command} writes it"
        )
    last = run.results.get("step")
    if last is not None and stored.step != last:
        file = os.path.join(run.path, stored_predictions.FILE)
        raise RunError(
            f"{file} is of step {stored.step:,}, but the last evaluation of step {last:,};"
            f" {command} updates it"
        )
    return stored


def _in_order(
    a: StoredPredictions, b: StoredPredictions, first: RunSummary, second: RunSummary
) -> StoredPredictions:
    """Return the predictions of the second run in the order of those of the first."""
    order = match_images(a.names, b.names, first, second)
    b = StoredPredictions(
        b.step,
        a.names,
        *(array[order] for array in (b.record, b.label, b.predicted, b.confidence)),
    )
    differing = int((a.label != b.label).reshape(len(a), -1).any(axis=1).sum())
    if differing:
        raise RunError(
            f"{first.name} and {second.name} were evaluated with different labels of"
            f" {differing:,} images"
        )
    return b


def match_images(a: list[str], b: list[str], first: RunSummary, second: RunSummary) -> np.ndarray:
    """Return where each image of the first run is among those of the second, int ``(N,)``.

    Args:
      a: names of the images of the first run.
      b: those of the second run.
      first: the first run.
      second: the second run.

    Raises:
      RunError: they were evaluated on other images, or these have no names.
    """
    both = f"{first.name} and {second.name}"
    order = np.arange(len(a))
    if a != b:
        names = set(a), set(b)
        if names[0] != names[1]:
            only = len(names[0] - names[1]), len(names[1] - names[0])
            raise RunError(
                f"{both} were evaluated on different images: {len(names[0] & names[1]):,} in"
                f" common, {only[0]:,} only of the first and {only[1]:,} only of the second run"
            )
        if len(names[0]) < len(a) or len(a) != len(b):
            raise RunError(f"{both} were evaluated on images that do not have different names")
        position = {name: index for index, name in enumerate(b)}
        order = np.array([position[name] for name in a])
    if _are_numbered(a) and first.data != second.data:
        raise RunError(
            f"{both} were evaluated on images without names, and their data have different names,"
            " splits, sizes or contents"
        )
    return order


def _are_numbered(names: list[str]) -> bool:
    """Return whether images have only numbers, which other data have, too."""
    return names[0].startswith("record ")
