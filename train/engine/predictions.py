"""What a net said of each example of a split, and writing that to a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.files import make_atomically
from flax_resnet.runs import class_probabilities
from train.data.source import DataSource
from train.runtime.errors import UsageError
from train.runtime.files import writing

ENDINGS = (".csv", ".npz")


@dataclass(frozen=True)
class Predictions:
    """One entry an example that counts, in the split's order.

    Attributes:
      record: its number in the split.
      label: the right class.
      predicted: the most probable class.
      rank: how many classes come before the right one; 0 is a right answer.
      confidence: probability of ``predicted``.
      of_label: probability of ``label``.
      outputs: of the head, as many as classes or more.
      probabilities: ``(N, outputs)``, or None where they were not kept.
    """

    record: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    confidence: np.ndarray
    of_label: np.ndarray
    outputs: int
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def right(self) -> np.ndarray:
        """Whether the most probable class is the right one."""
        return self.rank == 0


def answers(
    logits: jax.Array, labels: jax.Array, loss: str, keep: bool = False
) -> dict[str, jax.Array]:
    """What is said of each example, for the compiled evaluation step: a few numbers.

    Args:
      logits: ``(N, outputs)``.
      labels: int ``(N,)``.
      loss: ``config.loss``, which decides how logits become probabilities.
      keep: whether to give the probabilities of all classes, too.
    """
    probabilities = class_probabilities(logits, loss)
    # By the logits, as ranks are: of several sigmoids that round to 1 the first is no better.
    predicted = logits.argmax(axis=1)
    rows = jnp.arange(len(labels))
    told = {
        "predicted": predicted,
        "confidence": probabilities[rows, predicted],
        "of_label": probabilities[rows, labels],
    }
    return told | ({"probabilities": probabilities} if keep else {})


def output_names(class_names: Sequence[str], outputs: int) -> list[str]:
    """A name for each output of a head: the classes', and numbers for those beyond them."""
    return [*class_names, *(f"output {i}" for i in range(len(class_names), outputs))]


class PredictionCollector:
    """Makes predictions of what evaluation gives batch after batch, in the split's order.

    ``outputs`` are how many the head has.
    """

    def __init__(self, outputs: int):
        self._outputs = outputs
        self._start = 0
        self._parts: list[dict[str, np.ndarray]] = []

    def take(self, each: dict[str, np.ndarray]) -> None:
        """Takes a batch's :func:`answers`, with its ``label``, ``rank`` and ``valid``."""
        count = len(each["label"])
        part = each | {"record": np.arange(self._start, self._start + count)}
        valid = part.pop("valid")
        self._start += count
        self._parts.append({name: array[valid] for name, array in part.items()})

    def predictions(self) -> Predictions:
        """Those of all batches."""
        joined: dict[str, Any] = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }
        return Predictions(**joined, outputs=self._outputs)


def check_file(path: str) -> None:
    """Raises UsageError unless predictions can be written to such a file."""
    if not path.endswith(ENDINGS):
        raise UsageError(f"--predictions must name a .csv or .npz file, not {path!r}")
    if os.path.isdir(path):
        raise UsageError(f"--predictions must name a file, and {path!r} is a folder")


def write(path: str, predictions: Predictions, source: DataSource) -> None:
    """Writes a ``.csv``, a row an example, or an ``.npz`` with the probabilities of all classes.

    The row has ``image`` (what the data set calls it), ``label``, ``predicted``, ``probability``
    of that, ``probability_of_label`` and the label's ``place``, from 1. The arrays are called as
    in :class:`Predictions`, besides ``image`` and ``class_names``. Raises RunError where it
    cannot be written.
    """
    images = [source.record_name(int(record)) for record in predictions.record]
    names = output_names(source.class_names, predictions.outputs)

    def write_csv(beside: str) -> None:
        with open(beside, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ("image", "label", "predicted", "probability", "probability_of_label", "place")
            )
            for i, image in enumerate(images):
                label, predicted = predictions.label[i], predictions.predicted[i]
                confidence, of_label = predictions.confidence[i], predictions.of_label[i]
                numbers = f"{confidence:.7g}", f"{of_label:.7g}", predictions.rank[i] + 1
                writer.writerow((image, names[label], names[predicted], *numbers))

    def write_npz(beside: str) -> None:
        with open(beside, "wb") as file:  # np.savez adds an ending to a name
            np.savez_compressed(
                file,
                image=np.array(images),
                class_names=np.array(source.class_names),
                record=predictions.record,
                label=predictions.label,
                predicted=predictions.predicted,
                rank=predictions.rank,
                confidence=predictions.confidence,
                of_label=predictions.of_label,
                probabilities=predictions.probabilities,
            )

    with writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        make_atomically(path, write_csv if path.endswith(".csv") else write_npz)
