"""The calibration of a checkpoint: temperature, decision thresholds and prediction sets.

``train.evaluate --calibrate`` and ``--decide`` write it to the workdir as
``calibration/STEP_WEIGHTS.json``, and whatever loads that checkpoint uses it. It holds for that
checkpoint only: one of another step, or of the same step after a new training, is not used.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.files import write_atomically
from flax_resnet.run_reader import RunLoadError
from flax_resnet.weights import manifest
from flax_resnet.weights.checkpoints import FOLDER as CHECKPOINTS

FOLDER = "calibration"
DEFAULT_THRESHOLD = 0.5  # of a class of which an image may have several, without a stored one
TEMPERATURES = (0.01, 100.0)  # the range of valid ones

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DecisionThreshold:
    """The probability from which on an image is decided to be of a class.

    Attributes:
      threshold: in 0…1.
      target: the target it was chosen for, such as ``"recall=0.95"`` or ``"F1"``, the highest one;
        None if it was given.
    """

    threshold: float
    target: str | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The calibration of the weights of a step.

    Attributes:
      step: number of training steps.
      weights: ``"ema"`` or ``"raw"``.
      checkpoint: fingerprint of the checkpoint's files.
      activation: ``"softmax"`` or ``"sigmoid"``.
      dataset, split: the images, half of which were used to fit it.
      seed: seed of the halves.
      temperature: the logits are divided by it (Guo et al. 2017, arXiv:1706.04599, section 4.2);
        None for unchanged logits.
      decisions: thresholds by class name.
      fitted: probabilities of the true classes of the fitted half, ascending, with the
        temperature applied; empty if an image may have several classes.
      held_out: those of the other half.
      images: number of images of the fitted half; None: that of ``fitted``.
    """

    step: int
    weights: str
    checkpoint: str
    activation: str
    dataset: str
    split: str
    seed: int
    temperature: float | None
    decisions: Mapping[str, DecisionThreshold]
    fitted: Sequence[float]
    held_out: Sequence[float]
    images: int | None = None

    def label_thresholds(self, class_names: Sequence[str]) -> np.ndarray:
        """Return the probabilities ``(K,)`` from which on an image has each of several classes."""
        stored = (self.decisions.get(name) for name in class_names)
        return np.array([DEFAULT_THRESHOLD if one is None else one.threshold for one in stored])

    def decide(self, probabilities: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Return the decided classes, int ``(N,)``; -1 for none.

        Of the classes that reach their thresholds the most probable one is chosen; if there are
        none, the most probable class without a threshold, if there is one.

        Args:
          probabilities: ``(N, outputs)``.
          class_names: of the first outputs.
        """
        thresholds = np.full(probabilities.shape[1], np.inf)
        for name, decision in self.decisions.items():
            thresholds[class_names.index(name)] = decision.threshold
        without = np.isinf(thresholds)
        reached = probabilities >= thresholds
        allowed = np.where(reached.any(axis=1, keepdims=True), reached, without)
        best = np.where(allowed, probabilities, -1.0).argmax(axis=1)
        return np.where(allowed.any(axis=1), best, -1)

    def set_threshold(self, coverage: float) -> float:
        """Return the probability from which on classes belong to prediction sets.

        Split conformal prediction with the score 1 - p of the true class (LAC: Sadinle, Lei and
        Wasserman 2019) and its quantile at ceil((n + 1) coverage) / n (Vovk et al. 2005): the
        sets hold the true class of new images like the n fitted ones with at least that
        probability. A set may be empty, for an image on which no class is probable enough.

        Raises:
          ValueError: there are too few images for such a coverage.
        """
        images = len(self.fitted)
        # Without the margin 0.9 * 10 could be rounded to more than 9.
        index = images + 1 - math.ceil((images + 1) * coverage - 1e-9)
        if index < 1:
            raise ValueError(
                f"a coverage of {coverage:g} needs more than the {images:,} images of the"
                f" calibration, which allow at most {images / (images + 1):.6f}"
            )
        return self.fitted[index - 1]

    def covered(self, threshold: float) -> int:
        """Return in how many images of the held-out half the set has the true class."""
        return int((np.asarray(self.held_out) >= threshold).sum())

    @property
    def description(self) -> str:
        """The temperature, and the images it was fitted on, as text."""
        count = len(self.fitted) if self.images is None else self.images
        images = f"{count:,} images of {self.dataset} {self.split}"
        if self.temperature is None:
            return f"without a temperature, from {images}"
        return f"temperature {self.temperature:.4g}, fitted on {images}"


_text, _probability = schema.text(10_000), schema.number(0, 1)
_probabilities = schema.sequence(_probability, 0, 2_000_000)
_SCHEMA = schema.record(
    step=schema.integer(),
    weights=schema.text(choices=("ema", "raw")),
    checkpoint=schema.text(),
    activation=schema.text(choices=("softmax", "sigmoid")),
    dataset=schema.text(10_000, any_path=True),
    split=_text,
    seed=schema.integer(),
    temperature=schema.optional(schema.number(*TEMPERATURES)),
    decisions=schema.mapping(
        schema.record(threshold=_probability, target=schema.optional(schema.text(100))), 1_000_000
    ),
    fitted=_probabilities,
    held_out=_probabilities,
    images=schema.optional(schema.integer(1)),
    sha256=schema.text(64),
)


def calibration_file(path: str, step: int, weights: str) -> str:
    """Return the file of the calibration of a step's weights in the workdir ``path``."""
    return os.path.join(path, FOLDER, f"{step}_{weights}.json")


def write_calibration(path: str, calibration: Calibration) -> str:
    """Write the file of a calibration and return its path; raise OSError if that fails."""
    file = calibration_file(path, calibration.step, calibration.weights)
    content = dataclasses.asdict(calibration)
    content["sha256"] = _sha256(content)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    write_atomically(file, json.dumps(content, ensure_ascii=False) + "\n")
    return file


def checkpoint_fingerprint(path: str, step: int) -> str:
    """Return the fingerprint of a step's files in the workdir; "" if they have no manifest."""
    return manifest.fingerprint(os.path.join(path, CHECKPOINTS, str(step)))


def read_calibration(
    path: str, step: int, weights: str, activation: str, class_names: Sequence[str]
) -> tuple[Calibration | None, str]:
    """Return the calibration of a step's weights, or None and the reason if there is one.

    Args:
      path: the workdir.
      step: number of training steps.
      weights: ``"ema"`` or ``"raw"``.
      activation: ``"softmax"`` or ``"sigmoid"``.
      class_names: the run's.

    Raises:
      RunLoadError: the file is corrupt or was changed.
    """
    file = calibration_file(path, step, weights)
    try:
        content = schema.read_json(file, _SCHEMA)
        if content.pop("sha256") != _sha256(content):
            raise schema.SchemaError("it was changed: its checksum differs")
        decisions = {k: DecisionThreshold(**v) for k, v in content.pop("decisions").items()}
        calibration = Calibration(**content, decisions=decisions)
        if calibration.images is None and not (calibration.fitted and calibration.held_out):
            raise schema.SchemaError("it has no images")
        named = calibration.step, calibration.weights, calibration.activation
        if named != (step, weights, activation) or not decisions.keys() <= set(class_names):
            raise schema.SchemaError("it belongs to another run, step or weights")
    except (FileNotFoundError, NotADirectoryError):
        others = ", ".join(_calibrated(path)[:8])
        reason = f"{path!r} is calibrated for {others}, not for step {step} ({weights} weights)"
        return None, reason if others else ""
    except (OSError, schema.SchemaError) as error:
        raise RunLoadError(
            f"{schema.read_error(file, error)}; delete it, or write it again with train.evaluate"
            " --calibrate"
        ) from error
    if calibration.checkpoint != checkpoint_fingerprint(path, step):
        return None, f"{file} is of another training of step {step}"
    return calibration, ""


def find_calibration(path: str, step: int, *which: Any) -> Calibration | None:
    """Return :func:`read_calibration` of a step; log a warning if there is only another one."""
    calibration, reason = read_calibration(path, step, *which)
    if reason:
        _log.warning(
            "%s: the probabilities are not calibrated; calibrate this checkpoint with"
            " train.evaluate --calibrate",
            reason,
        )
    return calibration


def _calibrated(path: str) -> list[str]:
    """Return the names of all calibrations in the workdir, such as ``"440_raw"``."""
    try:
        names = sorted(os.listdir(os.path.join(path, FOLDER)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _sha256(content: Mapping[str, Any]) -> str:
    if content["images"] is None:  # as in files of older versions
        content = {name: value for name, value in content.items() if name != "images"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
