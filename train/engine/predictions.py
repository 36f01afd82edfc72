"""Collection of what an evaluation predicts for each example, and files of predictions."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet.files import make_atomically
from train.data.label_sets import join_classes
from train.data.source import DataSource
from train.runtime.array_files import save_arrays
from train.runtime.errors import UsageError
from train.runtime.files import writing
from train.tasks.base import BaseTask
from train.tasks.multi_label_metrics import decide
from train.tasks.predictions import Predictions

ENDINGS = (".csv", ".npz")
Rows = Callable[[Any, Sequence[str], Sequence[str]], Iterator[tuple]]


def output_names(class_names: Sequence[str], outputs: int) -> list[str]:
    """Return a name for each output of a head: the class, or a number beyond the classes."""
    return [*class_names, *(f"output {i}" for i in range(len(class_names), outputs))]


class PredictionCollector:
    """Collector of the predictions of all batches of an evaluation, in the order of the split.

    Args:
      task: whose :meth:`~train.tasks.base.BaseTask.per_example` is collected.
      outputs: number of outputs of the head.
      thresholds: as in :class:`~train.tasks.predictions.Predictions`.
    """

    def __init__(self, task: BaseTask, outputs: int, thresholds: np.ndarray | None = None):
        self._task, self.outputs, self._thresholds = task, outputs, thresholds
        self._start = 0
        self._parts: list[dict[str, np.ndarray]] = []
        self._totals: Mapping[str, Any] = {}

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Add the task's ``per_example`` of a batch, with ``valid``."""
        count = len(batch["valid"])
        part = batch | {"record": np.arange(self._start, self._start + count)}
        valid = part.pop("valid")
        self._start += count
        self._parts.append({name: array[valid] for name, array in part.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of all batches, and the thresholds if there are any."""
        names = self._parts[0]
        arrays = {name: np.concatenate([part[name] for part in self._parts]) for name in names}
        return arrays if self._thresholds is None else arrays | {"thresholds": self._thresholds}

    def summarize(self, totals: Mapping[str, Any]) -> dict[str, float]:
        """Keep the sums of an evaluation, and return the metrics of all examples together."""
        self._totals = totals
        return self._task.split_metrics(self.arrays(), self.outputs)

    def predictions(self) -> Any:
        """Return the task's predictions of all batches."""
        return self._task.predictions(self.arrays(), self._totals, self.outputs)


def check_predictions_path(path: str) -> None:
    """Raise UsageError unless predictions can be written to such a file."""
    if not path.endswith(ENDINGS):
        raise UsageError(f"--predictions must name a .csv or .npz file, not {path!r}")
    if os.path.isdir(path):
        raise UsageError(f"--predictions must name a file, but {path!r} is a folder")


def write_predictions(
    path: str, predictions: Any, source: DataSource, rows: Rows | None = None
) -> None:
    """Write predictions to a file.

    A ``.csv`` has one row per example. An ``.npz`` has the arrays of ``predictions``, ``file`` (the
    name of each example) and ``class_names``.

    Args:
      path: the file.
      predictions: a task's, such as :class:`~train.tasks.predictions.Predictions`.
      source: the split.
      rows: ``(predictions, names of the images, names of the outputs) -> rows`` of a ``.csv``, the
        titles first; default: :func:`prediction_rows`.

    Raises:
      RunError: the file cannot be written.
    """
    images = [source.record_name(int(record)) for record in predictions.record]
    names = output_names(source.class_names, predictions.outputs)

    def write_csv(temporary: str) -> None:
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows((rows or prediction_rows)(predictions, images, names))

    def write_npz(temporary: str) -> None:
        arrays = {"file": np.array(images), "class_names": np.array(source.class_names)}
        others = ("outputs", "features")  # the latter have a file of their own
        arrays |= {n: v for n, v in vars(predictions).items() if n not in others and v is not None}
        save_arrays(temporary, arrays)

    with writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        make_atomically(path, write_csv if path.endswith(".csv") else write_npz)


def prediction_rows(
    predictions: Predictions, images: Sequence[str], names: Sequence[str]
) -> Iterator[tuple]:
    """Return the rows of images with one or several classes.

    They have ``image`` (its name in the data set), ``label``, ``predicted``, ``probability`` of the
    latter, ``probability_of_label``, and ``place``, the rank of the label counted from 1. With
    several classes per image they have ``image``, ``label`` and ``predicted``, names joined by
    ``|``, and the probability of each class.
    """
    rows = _set_rows if predictions.several_labels else _class_rows
    return rows(predictions, images, names)


def _class_rows(
    predictions: Predictions, images: Sequence[str], names: Sequence[str]
) -> Iterator[tuple]:
    yield "image", "label", "predicted", "probability", "probability_of_label", "place"
    for i, image in enumerate(images):
        label, predicted = predictions.label[i], predictions.predicted[i]
        confidence, of_label = predictions.confidence[i], predictions.of_label[i]
        numbers = f"{confidence:.7g}", f"{of_label:.7g}", predictions.rank[i] + 1
        yield image, names[label], names[predicted], *numbers


def _set_rows(
    predictions: Predictions, images: Sequence[str], names: Sequence[str]
) -> Iterator[tuple]:
    labels, probabilities = predictions.label, predictions.probabilities
    names = names[: labels.shape[1]]
    yield "image", "label", "predicted", *names
    predicted = decide(probabilities, predictions.thresholds, len(names))
    for i, image in enumerate(images):
        sets = (join_classes(chosen[i], names) for chosen in (labels, predicted))
        yield image, *sets, *(f"{p:.7g}" for p in probabilities[i, : len(names)])
