"""The predictions of a run's last evaluation, in its workdir: ``predictions.npz``.

They are small, so that every run can keep them: label, prediction and confidence of each image
or, of images with several classes, the probability and the decision of each class.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flax_resnet.files import make_atomically
from train.data.source import DataSource
from train.data.sources.array_files import open_arrays
from train.runtime.array_files import save_arrays
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.tasks.multi_label_metrics import decide
from train.tasks.predictions import Predictions

FILE = "predictions.npz"
MAX_VALUES = 2**23  # images, or probabilities of images with several classes: 32 MiB
MAX_NAMES = 2**26  # bytes of the names of all images
_END = b"\0"  # of a name
_MAX_OUTPUTS = 10_000_000  # of a head, which may have more than classes


@dataclass(frozen=True)
class StoredPredictions:
    """The predictions of an evaluation.

    Attributes:
      step: of the evaluated state.
      names: of the images.
      record: their numbers in the split ``(N,)``.
      label: true class ``(N,)`` or, of images with several classes, zeros and ones ``(N, K)``.
      predicted: likewise.
      confidence: probability of the predicted class ``(N,)``, or of each class ``(N, K)``.
    """

    step: int
    names: list[str] = field(repr=False)
    record: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes."""
        return self.label.ndim == 2

    @property
    def right(self) -> np.ndarray:
        """Whether the prediction is right; with several classes, that of all of them."""
        same = self.label == self.predicted
        return same.all(axis=1) if self.several_labels else same


def store(workdir: str, step: int, predictions: Predictions, source: DataSource) -> bool:
    """Write predictions to the workdir, in place of earlier ones.

    Returns:
      False, without a file, for more than ``MAX_VALUES`` or ``MAX_NAMES``.

    Raises:
      RunError: the file cannot be written.
    """
    path = os.path.join(workdir, FILE)
    arrays = _to_arrays(step, predictions, source)
    with writing(path):
        if arrays is None:
            if os.path.exists(path):  # of an earlier evaluation
                os.unlink(path)
        else:
            make_atomically(path, lambda temporary: save_arrays(temporary, arrays))
    return arrays is not None


def _to_arrays(
    step: int, predictions: Predictions, source: DataSource
) -> dict[str, np.ndarray] | None:
    label, several = predictions.label, predictions.several_labels
    values = predictions.probabilities[:, : label.shape[1]] if several else predictions.confidence
    if values.size > MAX_VALUES:
        return None
    names = encode_names(source.record_name(int(record)) for record in predictions.record)
    if names.size > MAX_NAMES:
        return None
    predicted = predictions.predicted
    if several:  # not by the rounded probabilities: some lie at the threshold
        predicted = decide(values, predictions.thresholds, label.shape[1])
    return {
        "step": np.array(step, np.int64),
        "names": names,
        "record": predictions.record.astype(np.int32),
        "label": _smallest(label),
        "predicted": _smallest(predicted),
        # Rankings need all digits; a confidence is only shown.
        "confidence": values.astype(np.float32 if several else np.float16),
    }


def encode_names(names: Iterable[str]) -> np.ndarray:
    """Return names as bytes ``(L,)``, each with an end."""
    return np.frombuffer(b"".join(_encode(name) + _END for name in names), np.uint8)


def decode_names(encoded: np.ndarray) -> list[str]:
    """Return the names of :func:`encode_names`."""
    return [_decode(name) for name in encoded.tobytes().split(_END)[:-1]]


def stored_name(name: str) -> str:
    """Return the name of an image as it is read from the file."""
    return _decode(_encode(name))


def _encode(name: str) -> bytes:
    # Names of files may have bytes that are not UTF-8.
    return name.replace("\0", "\ufffd").encode("utf-8", "surrogatepass")


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _smallest(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def read(workdir: str, classes: int, several: bool) -> StoredPredictions | None:
    """Return the predictions of the last evaluation; None if there are none.

    Args:
      workdir: the run.
      classes: number of its classes.
      several: whether its images may have several classes.

    Raises:
      RunError: the file is damaged, or is of another run.
    """
    path = os.path.join(workdir, FILE)
    if not os.path.lexists(path):
        return None
    files = open_arrays(path)
    shapes = {"step": "i", "names": "u", "record": "i", "label": "u", "predicted": "u"}
    if any(name not in files or files[name].dtype.kind != k for name, k in shapes.items()):
        raise _damaged(path)
    if "confidence" not in files or files["confidence"].dtype.kind != "f":
        raise _damaged(path)
    if max(files[name].nbytes for name in (*shapes, "confidence")) > 4 * max(MAX_VALUES, MAX_NAMES):
        raise _damaged(path)
    arrays: dict[str, Any] = {name: files[name].values() for name in (*shapes, "confidence")}
    if arrays["names"].ndim != 1 or arrays["step"].shape:
        raise _damaged(path)
    names = decode_names(arrays["names"])
    shape = (len(names), classes) if several else (len(names),)
    valid = (
        len(names) > 0
        and all(arrays[n].shape == shape for n in ("label", "predicted", "confidence"))
        and arrays["record"].shape == shape[:1]
        and (arrays["record"] >= 0).all()
        and (arrays["label"] < (2 if several else classes)).all()
        and (arrays["predicted"] < (2 if several else _MAX_OUTPUTS)).all()
        and arrays["label"].dtype.itemsize <= 4  # as they are written; NumPy cannot count others
        and np.isfinite(arrays["confidence"]).all()
    )
    if not valid:
        raise _damaged(path)
    return StoredPredictions(**arrays | {"step": int(arrays["step"]), "names": names})


def _damaged(path: str) -> RunError:
    return RunError(f"{path} has no predictions of this run; train.evaluate rewrites it")
