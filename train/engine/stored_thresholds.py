"""Thresholds of an evaluation of images with several classes: those stored with the run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flax_resnet.calibration import Calibration, read_calibration
from flax_resnet.run_reader import RunLoadError
from train.data.source import DataSource
from train.runtime.errors import RunError
from train.workdir.run_files import read_description


@dataclass(frozen=True)
class StoredThresholds:
    """The thresholds that ``train.evaluate --calibrate`` or ``--decide`` stored for a checkpoint.

    Attributes:
      by_class: the stored ones, of calibrated probabilities, by class name.
      raw: the same and 0.5 for other classes, of the network's own probabilities ``(K,)``.
      dataset, split: the images on half of which they were chosen.
    """

    by_class: dict[str, float]
    raw: np.ndarray
    dataset: str
    split: str

    def were_chosen_on(self, source: DataSource) -> bool:
        """Return whether some of the images of a split chose the thresholds."""
        return (self.dataset, self.split) == (source.name, source.split)


def read_thresholds(path: str, step: int, weights: str) -> StoredThresholds | None:
    """Return the thresholds of a checkpoint of a run with several classes per image, if any.

    Args:
      path: the workdir.
      step: number of training steps.
      weights: ``"ema"`` or ``"raw"``.

    Raises:
      RunError: the calibration is corrupt or was changed.
    """
    names = read_description(path).class_names
    try:
        calibration, _ = read_calibration(path, step, weights, "sigmoid", names)
    except RunLoadError as error:
        raise RunError(str(error)) from error
    if calibration is None or not calibration.decisions:
        return None
    stored = {name: calibration.decisions[name] for name in names if name in calibration.decisions}
    return StoredThresholds(
        {name: one.threshold for name, one in stored.items()},
        raw_thresholds(calibration.label_thresholds(names), calibration.temperature),
        calibration.dataset,
        calibration.split,
    )


def find_calibration(
    path: str, step: int, weights: str, activation: str, warn: Callable[[str], None]
) -> Calibration | None:
    """Return the calibration of a checkpoint, for the report; None without a valid one.

    Args:
      path: the workdir.
      step: number of training steps.
      weights: ``"ema"`` or ``"raw"``.
      activation: ``"softmax"`` or ``"sigmoid"``.
      warn: receives a message if it is corrupt or was changed.
    """
    names = read_description(path).class_names
    try:
        return read_calibration(path, step, weights, activation, names)[0]
    except RunLoadError as error:
        warn(f"{error}; the report lacks its thresholds")
        return None


def raw_thresholds(thresholds: np.ndarray, temperature: float | None) -> np.ndarray:
    """Return the thresholds of sigmoids of logits that decide as those of logits / temperature."""
    if temperature is None:
        return thresholds
    from scipy.special import expit, logit  # takes 0.15 s

    return expit(temperature * logit(thresholds))
