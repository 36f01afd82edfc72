"""Predictions for each example of a split, and their files."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.files import make_atomically
from flax_resnet.runs import class_probabilities
from train.data.label_sets import join_classes
from train.data.source import DataSource
from train.runtime.array_files import save_arrays
from train.runtime.errors import UsageError
from train.runtime.files import writing
from train.tasks.multi_label_metrics import decide

ENDINGS = (".csv", ".npz")


@dataclass(frozen=True)
class Predictions:
    """Arrays with one entry per evaluated example, in the order of the split.

    Attributes:
      record: number of the example in the split.
      label: true class; of images with any number of classes zeros and ones ``(N, K)``.
      predicted: most probable class.
      rank: number of classes ranked before the true one, or the best of several; 0 is correct.
      confidence: probability of ``predicted``.
      outputs: number of outputs of the head, at least the number of classes.
      of_label: probability of ``label``; None with several classes per image.
      probabilities: ``(N, outputs)``, or None if they were not kept.
      logits: ``(N, outputs)``, or None if they were not kept.
      features: pooled, before the head, float32 ``(N, D)``, or None if they were not kept.
      thresholds: probabilities from which on classes are predicted, ``(K,)``; None: 0.5.
    """

    record: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    confidence: np.ndarray
    outputs: int
    of_label: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    logits: np.ndarray | None = None
    features: np.ndarray | None = None
    thresholds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes."""
        return self.label.ndim == 2

    @property
    def right(self) -> np.ndarray:
        """Whether the most probable class is the true one, or one of several."""
        return self.rank == 0


def predict_examples(
    logits: jax.Array,
    labels: jax.Array,
    kind: str,
    keep_probabilities: bool = False,
    keep_logits: bool = False,
) -> dict[str, jax.Array]:
    """Return a few numbers per example, inside the compiled evaluation step.

    Args:
      logits: ``(N, outputs)``.
      labels: int ``(N,)``, or ``(N, K)`` of zeros and ones.
      kind: how logits become probabilities: ``"softmax"`` or ``"sigmoid"``.
      keep_probabilities: whether to return the probabilities of all classes as well.
      keep_logits: whether to return the logits as well.
    """
    probabilities = class_probabilities(logits, kind)
    # By the logits, as ranks are: several sigmoids may round to 1.
    predicted = logits.argmax(axis=1)
    rows = jnp.arange(len(labels))
    result = {"predicted": predicted, "confidence": probabilities[rows, predicted]}
    if labels.ndim == 1:
        result["of_label"] = probabilities[rows, labels]
    result |= {"probabilities": probabilities} if keep_probabilities else {}
    return result | ({"logits": logits} if keep_logits else {})


def output_names(class_names: Sequence[str], outputs: int) -> list[str]:
    """Return a name for each output of a head: the class, or a number beyond the classes."""
    return [*class_names, *(f"output {i}" for i in range(len(class_names), outputs))]


class PredictionCollector:
    """Collector of the predictions of all batches of an evaluation, in the order of the split.

    Args:
      outputs: number of outputs of the head.
      thresholds: as in :class:`Predictions`.
    """

    def __init__(self, outputs: int, thresholds: np.ndarray | None = None):
        self.outputs, self._thresholds = outputs, thresholds
        self._start = 0
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Add a batch: :func:`predict_examples` with ``label``, ``rank`` and ``valid``."""
        count = len(batch["label"])
        part = batch | {"record": np.arange(self._start, self._start + count)}
        valid = part.pop("valid")
        self._start += count
        self._parts.append({name: array[valid] for name, array in part.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of all batches, and the thresholds if there are any."""
        names = self._parts[0]
        arrays = {name: np.concatenate([part[name] for part in self._parts]) for name in names}
        return arrays if self._thresholds is None else arrays | {"thresholds": self._thresholds}

    def predictions(self) -> Predictions:
        """Return the predictions of all batches."""
        return Predictions(**self.arrays(), outputs=self.outputs)


def check_predictions_path(path: str) -> None:
    """Raise UsageError unless predictions can be written to such a file."""
    if not path.endswith(ENDINGS):
        raise UsageError(f"--predictions must name a .csv or .npz file, not {path!r}")
    if os.path.isdir(path):
        raise UsageError(f"--predictions must name a file, but {path!r} is a folder")


def write_predictions(path: str, predictions: Predictions, source: DataSource) -> None:
    """Write predictions to a file.

    A ``.csv`` has one row per example: ``image`` (its name in the data set), ``label``,
    ``predicted``, ``probability`` of the latter, ``probability_of_label``, and ``place``, the
    rank of the label counted from 1. With several classes per image it has ``image``, ``label``
    and ``predicted``, names joined by ``|``, and the probability of each class. An ``.npz`` has
    the arrays of :class:`Predictions`, with the probabilities of all classes, ``file`` (the same
    name) and ``class_names``.

    Raises:
      RunError: the file cannot be written.
    """
    images = [source.record_name(int(record)) for record in predictions.record]
    names = output_names(source.class_names, predictions.outputs)

    def write_csv(temporary: str) -> None:
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            rows = _set_rows if predictions.several_labels else _class_rows
            writer.writerows(rows(predictions, images, names))

    def write_npz(temporary: str) -> None:
        arrays = {"file": np.array(images), "class_names": np.array(source.class_names)}
        others = ("outputs", "features")  # the latter have a file of their own
        arrays |= {n: v for n, v in vars(predictions).items() if n not in others and v is not None}
        save_arrays(temporary, arrays)

    with writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        make_atomically(path, write_csv if path.endswith(".csv") else write_npz)


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
