"""Calibration of images with any number of classes: a threshold for each class.

See :mod:`train.reporting.calibration.results` for what each function is for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.calibration import DEFAULT_THRESHOLD, Calibration, DecisionThreshold
from train.reporting.calibration.decisions import decision_lines, measure_decisions
from train.reporting.calibration.half import SHARE, Half, measured_schema
from train.reporting.classification_metrics import expected_calibration_error, reliability_bins
from train.runtime.formatting import format_percent, join_names
from train.tasks.decisions import DecisionRequest, best_f1_threshold
from train.tasks.multi_label_metrics import count_labels, decide, f1_micro, f1_scores

BEST = "F1"  # target of thresholds with the highest F1

_measures = schema.record(
    ece=SHARE, nll=schema.number(), f1_macro=schema.optional(SHARE), f1_micro=SHARE
)
MEASURED = measured_schema(_measures)


def choose_thresholds(
    fitted: Half,
    temperature: float | None,
    requests: Sequence[DecisionRequest],
    names: Sequence[str],
    earlier: Mapping[str, DecisionThreshold],
    calibrates: bool,
) -> tuple[dict[str, DecisionThreshold], list[str]]:
    """Return the thresholds, and remarks.

    With ``--calibrate`` every class gets the one with the highest F1, otherwise its earlier one;
    requested ones replace these.
    """
    decisions, remarks = dict(earlier), []
    if calibrates:
        probabilities = fitted.probabilities(temperature)
        present = np.flatnonzero(fitted.labels.any(axis=0)).tolist()
        decisions = {
            names[k]: DecisionThreshold(
                best_f1_threshold(probabilities[:, k], fitted.of_class(k)), BEST
            )
            for k in present
        }
        requested = {request.name for request in requests}
        if absent := [name for name in names if name not in decisions.keys() | requested]:
            remarks.append(
                f"no fitted image is of {join_names(absent, 8)}: the threshold stays"
                f" {DEFAULT_THRESHOLD}"
            )
    decisions |= fitted.requested(requests, temperature, names)
    if kept := sorted(decisions.keys() & earlier.keys() - {r.name for r in requests}):
        if not calibrates:
            remarks.append(f"with the earlier thresholds of {join_names(kept, 8)}")
    return decisions, remarks


def stored_images(fitted: Half, held_out: Half, temperature: float | None) -> dict[str, Any]:
    """Return the number of images; there are no prediction sets, which need one true class."""
    return {"fitted": (), "held_out": (), "images": len(fitted)}


def measure(calibration: Calibration, held_out: Half, names: Sequence[str]) -> dict[str, Any]:
    """Return ECE and NLL before and after, and F1 at 0.5 and at the thresholds.

    The expected calibration error is that of all pairs of an image and a class.
    """
    thresholds = calibration.label_thresholds(names)
    decided = decide(held_out.probabilities(calibration.temperature), thresholds, len(names))

    def masks(name: str) -> tuple[np.ndarray, np.ndarray]:
        k = names.index(name)
        return held_out.of_class(k), decided[:, k]

    return {
        "before": _compute_measures(held_out, None, None),
        "after": _compute_measures(held_out, calibration.temperature, thresholds),
        "decisions": measure_decisions(calibration.decisions, masks),
    }


def _compute_measures(
    half: Half, temperature: float | None, thresholds: np.ndarray | None
) -> dict[str, float | None]:
    probabilities, labels = half.probabilities(temperature), half.labels > 0
    bins = reliability_bins(probabilities.ravel(), labels.ravel())
    counts = count_labels(labels, decide(probabilities, thresholds, labels.shape[1]))
    scores = f1_scores(counts)
    known = scores[~np.isnan(scores)]
    return {
        "ece": expected_calibration_error(bins),
        "nll": half.nll(temperature),
        "f1_macro": float(known.mean()) if len(known) else None,
        "f1_micro": f1_micro(counts),
    }


def result_lines(measured: Mapping[str, Any]) -> list[str]:
    """Return the results on the held-out half as text, from their JSON."""
    before, after = measured["before"], measured["after"]
    macro = (
        "unknown" if one["f1_macro"] is None else f"{one['f1_macro']:.4f}"
        for one in (before, after)
    )
    return [
        f"ECE {format_percent(before['ece'], 2)} → {format_percent(after['ece'], 2)}, NLL"
        f" {before['nll']:.4f} → {after['nll']:.4f}; with thresholds instead of"
        f" {DEFAULT_THRESHOLD}: macro F1 {' → '.join(macro)}, micro F1 {before['f1_micro']:.4f} →"
        f" {after['f1_micro']:.4f}",
        *decision_lines(measured["decisions"]),
    ]
