"""Thresholds of probabilities that reach a recall or a precision."""

import math
import re
from dataclasses import dataclass

import numpy as np

from train.runtime.errors import RunError, UsageError
from train.runtime.formatting import format_percent

GOALS = ("recall", "precision")


@dataclass(frozen=True)
class DecisionRequest:
    """A threshold that ``--decide`` requests for a class.

    Attributes:
      name: name of the class.
      goal: ``"recall"`` or ``"precision"``; None if ``value`` is the threshold itself.
      value: the share to reach, or the threshold.
    """

    name: str
    goal: str | None
    value: float

    @property
    def target(self) -> str | None:
        """The goal and the share as text, such as ``"recall=0.95"``; None without a goal."""
        return self.goal and f"{self.goal}={self.value:g}"


def parse_decision(text: str) -> DecisionRequest:
    """Return the request of ``CLASS=THRESHOLD``, ``CLASS:recall=SHARE`` or ``CLASS:precision=…``.

    Raises:
      UsageError: the text is none of these.
    """
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    name, goal = re.fullmatch(rf"(.*?)(?::({'|'.join(GOALS)}))?", name, re.DOTALL).groups()
    if not (equals and name and (0 < value <= 1 if goal else 0 < value < 1)):
        raise UsageError(
            "--decide must be CLASS=THRESHOLD, CLASS:recall=SHARE or CLASS:precision=SHARE with a"
            f" number between 0 and 1, not {text!r}"
        )
    return DecisionRequest(name, goal, value)


def threshold_for(request: DecisionRequest, scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the threshold that a request leads to.

    For a recall it is the highest one that reaches it, for a precision the lowest one, so that the
    other of the two is as high as possible. It lies in the middle between two scores, so that
    rounding does not change a decision.

    Args:
      request: the request.
      scores: probabilities of the class, ``(N,)``.
      positive: whether the images are of the class, bool ``(N,)``.

    Raises:
      RunError: no threshold reaches it; the message has what is reachable.
    """
    if request.goal is None:
        return request.value
    if not positive.any():
        raise RunError(f"--decide {request.name}: none of the fitted images is of this class")
    distinct, recall, precision = recall_and_precision(scores, positive)
    shares = recall if request.goal == "recall" else precision
    # A share of 0.95 may be 19 / 20, which is rounded.
    reached = np.flatnonzero(shares >= request.value - 1e-12)
    if not len(reached):
        best = int(shares.argmax())
        raise RunError(
            f"--decide {request.name}:{request.goal}={request.value:g} cannot be reached: the"
            f" highest {request.goal} in the {len(scores):,} fitted images is"
            f" {format_percent(shares[best])}, with the threshold {distinct[best]:.4g} and a recall"
            f" of {format_percent(recall[best])}"
        )
    return _middle(distinct, reached[0] if request.goal == "recall" else reached[-1])


def best_f1_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the threshold with the highest F1, of equal ones the highest threshold.

    As in :func:`threshold_for` it lies in the middle between two scores.

    Args:
      scores: probabilities of the class, ``(N,)``.
      positive: whether the images are of the class, bool ``(N,)``; some are.
    """
    distinct, recall, precision = recall_and_precision(scores, positive)
    # Without a hit both are 0, as is F1.
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-300)
    return _middle(distinct, int(f1.argmax()))


def _middle(distinct: np.ndarray, index: int) -> float:
    """Return the middle between a score and the next lower one, or 0 after the last."""
    below = distinct[index + 1] if index + 1 < len(distinct) else 0.0
    return float((distinct[index] + below) / 2)


def recall_and_precision(
    scores: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all scores, descending, and recall and precision with each as the threshold."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of equal scores
    hits = np.cumsum(positive[order])[last]
    return ordered[last], hits / positive.sum(), hits / (np.flatnonzero(last) + 1)
