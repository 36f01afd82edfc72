"""Calibration of an evaluated checkpoint: fitted on half of the images, measured on the others.

What depends on the task is in a module for images of one class each and in one for images of
several classes, both with the functions ``choose_thresholds``, ``stored_images``, ``measure`` and
``result_lines`` and the schema ``MEASURED`` of their results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from flax_resnet.calibration import (
    Calibration,
    checkpoint_fingerprint,
    read_calibration,
    write_calibration,
)
from flax_resnet.run_reader import RunLoadError
from flax_resnet.text import one_line
from train.data.folds import assign_folds
from train.engine.evaluation import Evaluated
from train.reporting.calibration import multi_label, single_label
from train.reporting.calibration.half import Half
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError
from train.runtime.files import writing
from train.tasks.decisions import DecisionRequest
from train.tasks.predictions import Predictions
from train.tasks.temperature import fit_temperature
from train.workdir.run_files import read_description

SEED = 0  # of the halves
MIN_IMAGES = 20


@dataclass(frozen=True)
class CalibrationResults:
    """A calibration, and what it does to the images that it was not fitted on.

    Attributes:
      calibration: to be stored with the run.
      measured: results on the held-out half, for JSON.
      lines: the same as text.
      warnings: what makes the results worse than they look.
    """

    calibration: Calibration
    measured: dict[str, Any]
    lines: list[str]
    warnings: tuple[str, ...] = ()

    def store(self, workdir: str) -> str:
        """Write the calibration to the workdir, and return its file."""
        with writing(workdir):
            return write_calibration(workdir, self.calibration)


def calibrate(
    workdir: str, evaluated: Evaluated, temperature: bool, requests: Sequence[DecisionRequest]
) -> CalibrationResults:
    """Fit a temperature and thresholds on half of the evaluated images.

    The half is stratified by class and keeps groups together, as the first of two folds.

    Args:
      workdir: the run.
      evaluated: its evaluation, with logits.
      temperature: whether to fit one; otherwise a stored one is kept.
      requests: the thresholds, for classes of the run.

    Raises:
      RunError: there are too few images, predictions are no better than chance, or what was
        requested cannot be reached.
    """
    predictions, source = evaluated.predictions, evaluated.loader.source
    info, step = read_description(workdir), evaluated.result["step"]
    kind = info.activation(evaluated.config.loss)
    names = list(info.class_names)
    if len(predictions) < MIN_IMAGES:
        raise RunError(
            f"a calibration needs at least {MIN_IMAGES} images, but {source.split!r} has"
            f" {len(predictions)}"
        )
    record = predictions.record
    images = [source.record_name(int(index)) for index in record]
    groups = None if source.groups is None else [source.groups[index] for index in record]
    first = assign_folds(images, predictions.label, groups, 2, SEED) == 0
    fitted, held_out = (_half(predictions, part, kind) for part in (first, ~first))
    stored = None
    try:
        stored, _ = read_calibration(workdir, step, evaluated.weights, kind, names)
    except RunLoadError as error:
        if not temperature:
            raise RunError(str(error)) from error
    if temperature:
        value = fit_temperature(fitted.logits, fitted.labels, kind)
    else:
        value = None if stored is None else stored.temperature
    task = multi_label if predictions.several_labels else single_label
    earlier = {} if stored is None else stored.decisions
    decisions, remarks = task.choose_thresholds(
        fitted, value, requests, names, earlier, temperature
    )
    calibration = Calibration(
        step=step,
        weights=evaluated.weights,
        checkpoint=checkpoint_fingerprint(workdir, step),
        activation=kind,
        dataset=source.name,
        split=source.split,
        seed=SEED,
        temperature=value,
        decisions=decisions,
        **task.stored_images(fitted, held_out, value),
    )
    if temperature and value is None:
        remarks = [
            "without a temperature, since nearly all predictions for the fitted images are right,"
            " so that no confidence is too high for them: probabilities stay the network's own;"
            " more images may determine one",
            *remarks,
        ]
    measured = {
        "temperature": value,
        "seed": SEED,
        "fitted": len(fitted),
        "examples": len(held_out),
        **task.measure(calibration, held_out, names),
    }
    warnings: tuple[str, ...] = ()
    if "dataset" not in evaluated.result and _is_trained_on(source.split, evaluated.config.dataset):
        warnings = (
            f"the network was trained on {source.split!r}, where its probabilities are closer to"
            " the truth than on new images; calibrate on another split",
        )
    lines = [*measured_lines(measured), *map(one_line, remarks)]
    lines = [f"calibrated   {line}" for line in lines]
    return CalibrationResults(calibration, measured, lines, warnings)


def _is_trained_on(split: str, dataset: ConfigDict) -> bool:
    """Return whether a split is the training split of the run, or a part of it."""
    return split == dataset.train_split or split.startswith(f"{dataset.train_split}[")


def _half(predictions: Predictions, part: np.ndarray, kind: str) -> Half:
    logits, labels = predictions.logits[part].astype(np.float64), predictions.label[part]
    return Half(
        logits[:, : labels.shape[1]] if predictions.several_labels else logits, labels, kind
    )


def _check_measured(value: Any, field: str) -> dict[str, Any]:
    """Check the JSON of ``CalibrationResults.measured``, as a schema."""
    return _module_for(value).MEASURED(value, field)


MEASURED = _check_measured


def measured_lines(measured: Mapping[str, Any]) -> list[str]:
    """Return the results on the held-out half as text, from their JSON."""
    temperature = measured["temperature"]
    first, *others = _module_for(measured).result_lines(measured)
    fitted = (
        f"{'without a temperature' if temperature is None else f'temperature {temperature:.4g}'},"
        f" fitted on {measured['fitted']:,} images (stratified, seed {measured['seed']}); on the"
        f" other {measured['examples']:,}: {first}"
    )
    return list(map(one_line, (fitted, *others)))


def _module_for(measured: Any) -> ModuleType:
    """Return the module of results: only those of one class per image have prediction sets."""
    several = isinstance(measured, dict) and "sets" not in measured
    return multi_label if several else single_label
