"""What the calibration of a run adds to its predictions: decisions and prediction sets."""

from typing import Any

import numpy as np

from flax_resnet.runs import Run
from train.runtime.errors import UsageError
from train.runtime.formatting import format_percent


class CalibratedAnswers:
    """Decisions and prediction sets, by the calibration of a run.

    Args:
      run: the run.
      coverage: probability with which the sets hold the true class; None for no sets.

    Attributes:
      names: ``decision`` if the calibration has thresholds, and ``set`` with a coverage.
      notes: what was used, as text.

    Raises:
      UsageError: there is no calibration, or of too few images for the coverage.
    """

    def __init__(self, run: Run, coverage: float | None):
        calibration = run.calibration
        if coverage is not None and calibration is None:
            raise UsageError(
                f"--coverage needs a calibrated checkpoint, and step {run.step} of {run.path!r} is"
                " not one: run train.evaluate --calibrate first"
            )
        self.names: list[str] = []
        self.notes: list[str] = []
        if calibration is None:
            return
        self._calibration = calibration
        self._classes = [run.class_name(index) for index in range(run.model.num_classes)]
        self.notes.append(f"calibrated: {calibration.description}")
        if calibration.decisions:
            self.names.append("decision")
            thresholds = (
                f"{name} from {d.threshold:.4g}"
                for name, d in sorted(calibration.decisions.items())
            )
            self.notes.append(f"decisions: {', '.join(thresholds)}")
        if coverage is not None:
            self.names.append("set")
            try:
                self._in_set = calibration.set_threshold(coverage)
            except ValueError as error:
                raise UsageError(f"--coverage: {error}") from None
            count = len(calibration.held_out)
            share = format_percent(calibration.covered(self._in_set) / count)
            self.notes.append(
                f"sets: classes with a probability of at least {self._in_set:.4g}; they held the"
                f" true class of {share} of {count:,} other images"
            )

    def of(self, probabilities: np.ndarray) -> dict[str, Any]:
        """Return the answers for one image, with its probabilities ``(outputs,)``."""
        answers: dict[str, Any] = {}
        if "decision" in self.names:
            [index] = self._calibration.decide(probabilities[None], self._classes)
            answers["decision"] = "" if index < 0 else self._classes[index]
        if "set" in self.names:
            order = (-probabilities).argsort(kind="stable")
            answers["set"] = [self._classes[i] for i in order if probabilities[i] >= self._in_set]
        return answers
