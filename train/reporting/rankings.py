"""ROC and precision–recall curves of an evaluation, as JSON of bounded size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_resnet import schema
from train.engine.evaluation import Evaluated
from train.tasks.metrics import MAX_PROBABILITIES
from train.tasks.ranking_curves import (
    MAX_POINTS,
    Curves,
    macro_average,
    ranking_curves,
    thinned,
)
from train.tasks.temperature import scaled_probabilities

MAX_CLASSES = 8  # with curves of their own
_DECIMALS = 5  # of the coordinates

_SHARE = schema.number(0, 1 + 1e-6)
_POINTS = schema.sequence(_SHARE, 2, 2 * MAX_POINTS)


def _curve(**fields: Any) -> dict[str, Any]:
    if any(len(fields[name]) % 2 for name in ("roc", "precision_recall")):
        raise ValueError("its points are not pairs")
    return fields


def _rankings(**fields: Any) -> dict[str, Any]:
    if len(fields["curves"]) == 1 and fields["curves"][0]["kind"] != "class":
        raise ValueError("its only curve is not that of a class")
    return fields


SCHEMA = schema.record(
    _rankings,
    classes=schema.integer(1),
    curves=schema.sequence(
        schema.record(
            _curve,
            kind=schema.text(choices=("class", "macro", "micro")),
            name=schema.text(10_000, any_path=True),
            auroc=_SHARE,
            average_precision=_SHARE,
            positives=_SHARE,
            roc=_POINTS,
            precision_recall=_POINTS,
            mark=schema.optional(
                schema.record(
                    threshold=_SHARE,
                    false_positive_rate=_SHARE,
                    recall=_SHARE,
                    precision=schema.optional(_SHARE),
                )
            ),
        ),
        1,
        MAX_CLASSES + 2,
    ),
)


class Decided(NamedTuple):
    """The stored threshold of a class, and the calibrated probabilities ``(N,)`` it is for."""

    threshold: float
    probabilities: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """Whether the images reach the threshold, bool ``(N,)``."""
        return self.probabilities >= self.threshold


def stored_decisions(evaluated: Evaluated) -> dict[int, Decided]:
    """Return the thresholds that are stored with the evaluated checkpoint, by class."""
    calibration, predictions = evaluated.calibration, evaluated.predictions
    if calibration is None or not calibration.decisions or predictions.probabilities is None:
        return {}
    logits, kind = predictions.logits, calibration.activation
    if logits is None:
        with np.errstate(divide="ignore"):  # logits up to a constant of each image
            p = predictions.probabilities.astype(np.float64)
            logits = np.log(p) - (np.log1p(-p) if kind == "sigmoid" else 0)
    probabilities = scaled_probabilities(logits, kind, calibration.temperature)
    names = list(evaluated.loader.source.class_names)
    return {
        names.index(name): Decided(one.threshold, probabilities[:, names.index(name)])
        for name, one in calibration.decisions.items()
    }


def build_rankings(
    names: Sequence[str],
    positive: Callable[[int], np.ndarray],
    probabilities: np.ndarray | None,
    decided: Mapping[int, Decided],
    one_class_each: bool,
) -> dict[str, Any] | None:
    """Return the curves that a report shows, for JSON; None without any.

    Of two classes of which each image has one, it is the curve of the rarer class. Of others it is
    the mean over classes, that of all probabilities together, and the classes with the lowest
    average precision, each against the rest.

    Args:
      names: the classes.
      positive: ``(class) -> bool (N,)``, whether the images have it.
      probabilities: ``(N, outputs)``; None or too many to sort give no curves.
      decided: the stored thresholds by class.
      one_class_each: whether each image has exactly one class.
    """
    if probabilities is None or probabilities.size > MAX_PROBABILITIES:
        return None
    classes = range(len(names))
    if one_class_each and len(names) == probabilities.shape[1] == 2:
        counts = [int(positive(k).sum()) for k in classes]
        classes = [0] if counts[0] < counts[1] else [1]
    # By class one after the other in memory, which reads them several times faster.
    scores = np.ascontiguousarray(probabilities[:, : len(names)].T)
    curves = {k: ranking_curves(scores[k], positive(k)) for k in classes}
    ranked = {k: one for k, one in curves.items() if one is not None}
    if not ranked:
        return None
    shown = []
    if len(classes) > 1:
        shown.append(_to_dict("macro", "", macro_average(ranked.values())))
        labels = np.stack([positive(k) for k in classes])
        micro = ranking_curves(scores.ravel(), labels.ravel())
        shown += [] if micro is None else [_to_dict("micro", "", micro)]
    worst = sorted(ranked, key=lambda k: (ranked[k].average_precision, k))[:MAX_CLASSES]
    for k in worst:
        mark = _mark(decided[k], positive(k)) if k in decided else None
        shown.append(_to_dict("class", names[k], ranked[k], mark))
    return {"classes": len(ranked), "curves": shown}


def _to_dict(
    kind: str, name: str, curves: Curves, mark: dict[str, Any] | None = None
) -> dict[str, Any]:
    def flat(points: np.ndarray) -> list[float]:
        return thinned(points).round(_DECIMALS).ravel().tolist()

    return {
        "kind": kind,
        "name": name,
        "auroc": curves.auroc,
        "average_precision": curves.average_precision,
        "positives": curves.positives,
        "roc": flat(curves.roc),
        "precision_recall": flat(curves.precision_recall),
        "mark": mark,
    }


def _mark(decided: Decided, positive: np.ndarray) -> dict[str, Any]:
    """Return the place of a threshold on the curves; both classes have images."""
    reached = decided.reached
    chosen, hits = int(reached.sum()), int((reached & positive).sum())
    return {
        "threshold": decided.threshold,
        "false_positive_rate": (chosen - hits) / int((~positive).sum()),
        "recall": hits / int(positive.sum()),
        "precision": hits / chosen if chosen else None,
    }
