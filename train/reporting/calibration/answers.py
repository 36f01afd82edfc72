"""What a run adds to its probabilities: decisions, prediction sets, or several labels."""

from typing import Any

import numpy as np

from flax_resnet.runs import Run
from train.data.label_sets import SEPARATOR
from train.runtime.errors import UsageError
from train.runtime.formatting import format_percent, join_names

MAX_NAMED = 30  # thresholds in a note


def make_answers(run: Run, coverage: float | None) -> "CalibratedAnswers | LabelAnswers":
    """Return the answers of a run; ``coverage`` is that of prediction sets, if any.

    Raises:
      UsageError: the run cannot have prediction sets of that coverage.
    """
    if not run.several_labels:
        return CalibratedAnswers(run, coverage)
    if coverage is not None:
        raise UsageError(
            "--coverage is for runs with one class per image; an image of this run may have"
            " several, which its predictions list as labels"
        )
    return LabelAnswers(run)


class LabelAnswers:
    """The classes of an image that may have several: those that reach their thresholds.

    Args:
      run: the run.

    Attributes:
      names: ``labels``.
      notes: the calibration that was used, as text.
    """

    names = ("labels",)

    def __init__(self, run: Run):
        self._run = run
        self.notes = _calibration_notes(run) + _list_notes(run)

    def of(self, probabilities: np.ndarray) -> dict[str, Any]:
        """Return the answers for one image, with its probabilities ``(outputs,)``."""
        return {"labels": list(self._run.reached(probabilities))}


def _calibration_notes(run: Run) -> list[str]:
    calibration = run.calibration
    if calibration is None:
        return []
    notes = [f"calibrated: {calibration.description}"]
    if calibration.decisions:
        thresholds = [
            f"{name} from {one.threshold:.4g}"
            for name, one in sorted(calibration.decisions.items())
        ]
        noun = "labels" if run.several_labels else "decisions"
        notes.append(f"{noun}: {join_names(thresholds, MAX_NAMED)}")
    return notes


def _list_notes(run: Run) -> list[str]:
    """Return a note if lists of classes in a table would be ambiguous."""
    ambiguous = [name for name in run.class_names if SEPARATOR in name]
    if not ambiguous:
        return []
    return [
        f"the class {ambiguous[0]!r} has the {SEPARATOR!r} in its name that joins classes with"
        " --csv; --json has lists"
    ]


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
        self.notes = _calibration_notes(run)
        if calibration is None:
            return
        self._calibration = calibration
        self._classes = [run.class_name(index) for index in range(run.model.num_classes)]
        if calibration.decisions:
            self.names.append("decision")
        if coverage is not None:
            self.names.append("set")
            try:
                self._in_set = calibration.set_threshold(coverage)
            except ValueError as error:
                raise UsageError(f"--coverage: {error}") from None
            count = len(calibration.held_out)
            share = format_percent(calibration.covered(self._in_set) / count)
            self.notes += _list_notes(run)
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
