"""Cross-validation: runs that differ only in the fold, and the metrics of all held-out images."""

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.compare.configurations import identity
from train.compare.runs import RunSummary
from train.data.sources.array_files import open_arrays
from train.data.splits import parse_fold
from train.runtime.errors import RunError
from train.runtime.formatting import join_names
from train.tasks.metrics import classification_metrics
from train.tasks.multi_label_metrics import multi_label_metrics
from train.workdir import held_out, run_files

_FOLD = "dataset.fold"
_ARRAYS = ("label", "predicted", "rank", "probabilities")
_COUNTS = ("eval/bad", "eval/examples")


@dataclass(frozen=True)
class CrossValidation:
    """Finished runs on different folds of the same images.

    Attributes:
      runs: the runs, by fold.
      folds: number of folds of the division; some may have no run.
      images: number of all held-out images.
      pooled: metrics of all held-out images together, as the keys of ``metrics.jsonl``.
      remark: why these are missing; else empty.
    """

    runs: Sequence[RunSummary]
    folds: int
    images: int
    pooled: Mapping[str, float]
    remark: str = ""


def cross_validations(runs: Sequence[RunSummary]) -> list[CrossValidation]:
    """Return the groups of two or more finished runs that differ only in the fold."""
    groups: dict[Hashable, list[RunSummary]] = {}
    for run in runs:
        fold = run.values.get(_FOLD, "")
        if fold and not run.remark:
            same = parse_fold(fold)[1], identity(run.values, _FOLD)
            groups.setdefault(same, []).append(run)
    return [_validate(group) for group in groups.values() if len(group) > 1]


def _validate(runs: Sequence[RunSummary]) -> CrossValidation:
    runs = sorted(runs, key=lambda run: parse_fold(run.values[_FOLD])[0])
    folds = parse_fold(runs[0].values[_FOLD])[1]
    try:
        predictions = [_read(run) for run in runs]
        pooled = _pool(runs, predictions)
    except RunError as error:
        return CrossValidation(runs, folds, 0, {}, str(error))
    return CrossValidation(runs, folds, sum(len(part["label"]) for part in predictions), pooled)


def _read(run: RunSummary) -> dict[str, np.ndarray]:
    """Read the held-out predictions of a run; raise RunError for missing or unusable ones."""
    file = os.path.join(run.path, held_out.PREDICTIONS)
    arrays = {name: array.values() for name, array in open_arrays(file).items()}
    description = run_files.read_description(run.path)
    classes = description.class_names
    several = description.has_several_labels(run.values.get("task"))
    images, probabilities = arrays.get("file"), arrays.get("probabilities")
    valid = (
        _is(images, "U", 1)
        and len(images)
        and _is(probabilities, "f", 2)
        and len(probabilities) == len(images)
        and np.isfinite(probabilities).all()
        and all(
            _is(arrays.get(name), "iu", 1)
            and len(arrays[name]) == len(images)
            and (0 <= arrays[name]).all()
            and (arrays[name] < count).all()
            for name, count in (
                ("predicted", probabilities.shape[1]),
                ("rank", probabilities.shape[1] + several),  # last without a class
            )
        )
        and _are_labels(arrays.get("label"), len(images), len(classes), several)
        and probabilities.shape[1] >= len(classes)
    )
    if not valid:
        raise RunError(f"{file} has no predictions of this run; train.main writes it at the end")
    used = {name: arrays[name] for name in (*_ARRAYS, "file")}
    return used | {"class_names": np.array(classes)}


def _are_labels(array: np.ndarray | None, images: int, classes: int, several: bool) -> bool:
    """Return whether an array has class numbers, or zeros and ones of ``several`` classes."""
    shape, count = ((images, classes), 2) if several else ((images,), classes)
    valid = _is(array, "iu", len(shape)) and array.shape == shape
    return valid and bool(((0 <= array) & (array < count)).all())


def _is(array: np.ndarray | None, kinds: str, axes: int) -> bool:
    return array is not None and array.dtype.kind in kinds and array.ndim == axes


def _pool(runs: Sequence[RunSummary], predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the metrics of all predictions together.

    Raises:
      RunError: an image is held out in several runs, or the classes differ.
    """
    first = predictions[0]
    for run, part in zip(runs, predictions, strict=True):
        same_outputs = part["probabilities"].shape[1] == first["probabilities"].shape[1]
        if not (same_outputs and np.array_equal(part["class_names"], first["class_names"])):
            raise RunError(f"{runs[0].path!r} and {run.path!r} have different classes")
    counts = Counter(name for part in predictions for name in part["file"].tolist())
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise RunError(
            f"{len(repeated):,} images are held out in several of the runs, whose data differ:"
            f" {join_names(repeated, 3)}"
        )
    sizes = [len(part["label"]) for part in predictions]
    names = set.intersection(*({*run.results} for run in runs))
    pooled = {
        name: float(np.average([run.results[name] for run in runs], weights=sizes))
        for name in names
        if name.startswith("eval/") and name not in _COUNTS
        if all(isinstance(run.results[name], int | float) for run in runs)
    }
    arrays = {name: np.concatenate([part[name] for part in predictions]) for name in _ARRAYS}
    compute = classification_metrics if arrays["label"].ndim == 1 else multi_label_metrics
    metrics = compute(arrays, first["probabilities"].shape[1])
    return pooled | {f"eval/{name}": value for name, value in metrics.items()}
