"""Calibration of images of one class each: thresholds of classes, and prediction sets.

See :mod:`train.reporting.calibration.results` for what each function is for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.calibration import Calibration, DecisionThreshold
from train.engine.predictions import output_names
from train.reporting.calibration.decisions import decision_lines, measure_decisions
from train.reporting.calibration.half import COUNT, INTERVAL, SHARE, Half, measured_schema
from train.reporting.classification_metrics import (
    expected_calibration_error,
    reliability_bins,
    wilson_interval,
)
from train.runtime.formatting import format_percent, join_names
from train.tasks.decisions import DecisionRequest

COVERAGE = 0.9  # of the prediction sets that an evaluation measures

_measures = schema.record(ece=SHARE, nll=schema.number(), top1=SHARE)
MEASURED = measured_schema(
    _measures,
    sets=schema.record(
        coverage=SHARE,
        threshold=SHARE,
        measured=SHARE,
        interval=INTERVAL,
        mean_size=schema.number(0),
        empty=COUNT,
    ),
)


def choose_thresholds(
    fitted: Half,
    temperature: float | None,
    requests: Sequence[DecisionRequest],
    names: Sequence[str],
    earlier: Mapping[str, DecisionThreshold],
    calibrates: bool,
) -> tuple[dict[str, DecisionThreshold], list[str]]:
    """Return the requested thresholds, and remarks; they replace all earlier ones."""
    decisions = fitted.requested(requests, temperature, names)
    dropped = sorted(earlier.keys() - decisions.keys())
    remarks = [f"without the earlier thresholds of {join_names(dropped)}"] if dropped else []
    return decisions, remarks


def stored_images(fitted: Half, held_out: Half, temperature: float | None) -> dict[str, Any]:
    """Return the probabilities of the labels of both halves, ascending, with float32's digits."""

    def of_label(half: Half) -> tuple[float, ...]:
        own = half.probabilities(temperature)[np.arange(len(half)), half.labels]
        return tuple(float(f"{p:.9g}") for p in np.sort(own).tolist())

    return {"fitted": of_label(fitted), "held_out": of_label(held_out)}


def measure(calibration: Calibration, held_out: Half, names: Sequence[str]) -> dict[str, Any]:
    """Return ECE, NLL and top-1 before and after, and what sets and decisions hold."""
    outputs = output_names(names, held_out.logits.shape[1])
    decided = calibration.decide(held_out.probabilities(calibration.temperature), outputs)

    def masks(name: str) -> tuple[np.ndarray, np.ndarray]:
        index = names.index(name)
        return held_out.of_class(index), decided == index

    return {
        "before": _compute_measures(held_out, None),
        "after": _compute_measures(held_out, calibration.temperature),
        "sets": _measure_sets(calibration, held_out),
        "decisions": measure_decisions(calibration.decisions, masks),
    }


def _compute_measures(half: Half, temperature: float | None) -> dict[str, float]:
    probabilities = half.probabilities(temperature)
    correct = probabilities.argmax(axis=1) == half.labels
    bins = reliability_bins(probabilities.max(axis=1), correct)
    return {
        "ece": expected_calibration_error(bins),
        "nll": half.nll(temperature),
        "top1": float(correct.mean()),
    }


def _measure_sets(calibration: Calibration, half: Half) -> dict[str, Any]:
    threshold = calibration.set_threshold(COVERAGE)
    sizes = (half.probabilities(calibration.temperature) >= threshold).sum(axis=1)
    covered, count = calibration.covered(threshold), len(half)
    return {
        "coverage": COVERAGE,
        "threshold": threshold,
        "measured": covered / count,
        "interval": wilson_interval(covered, count),
        "mean_size": float(sizes.mean()),
        "empty": int((sizes == 0).sum()),
    }


def result_lines(measured: Mapping[str, Any]) -> list[str]:
    """Return the results on the held-out half as text, from their JSON."""
    before, after, sets = (measured[name] for name in ("before", "after", "sets"))
    low, high = map(format_percent, sets["interval"])
    return [
        f"ECE {format_percent(before['ece'], 2)} → {format_percent(after['ece'], 2)}, NLL"
        f" {before['nll']:.4f} → {after['nll']:.4f}, top-1 {format_percent(before['top1'], 2)} →"
        f" {format_percent(after['top1'], 2)}",
        f"{format_percent(sets['coverage'], 0)} prediction sets hold the true class of"
        f" {format_percent(sets['measured'])} ({low} to {high}) of these; {sets['mean_size']:.2f}"
        f" classes on average, {sets['empty']:,} empty",
        *decision_lines(measured["decisions"]),
    ]
