"""Calibration of an evaluated checkpoint: fitted on half of the images, measured on the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flax_resnet import schema
from flax_resnet.calibration import (
    TEMPERATURES,
    Calibration,
    DecisionThreshold,
    checkpoint_fingerprint,
    read_calibration,
    write_calibration,
)
from flax_resnet.run_reader import RunLoadError
from flax_resnet.text import one_line
from train.data.folds import assign_folds
from train.engine.evaluation import Evaluated
from train.engine.predictions import output_names
from train.reporting.classification_metrics import (
    expected_calibration_error,
    reliability_bins,
    wilson_interval,
)
from train.runtime.errors import RunError, UsageError
from train.runtime.files import writing
from train.runtime.formatting import format_percent, join_names
from train.tasks.decisions import DecisionRequest, threshold_for
from train.tasks.temperature import (
    fit_temperature,
    negative_log_likelihood,
    scaled_probabilities,
)
from train.workdir.run_files import read_description

SEED = 0  # of the halves
MIN_IMAGES = 20
COVERAGE = 0.9  # of the prediction sets that an evaluation measures

_share_of_1, _count = schema.number(0, 1 + 1e-6), schema.integer()
_interval = schema.sequence(_share_of_1, 2, 2)
_measures = schema.record(ece=_share_of_1, nll=schema.number(), top1=_share_of_1)
# The JSON of CalibrationResults.measured.
MEASURED = schema.record(
    temperature=schema.optional(schema.number(*TEMPERATURES)),
    seed=_count,
    fitted=_count,
    examples=_count,
    before=_measures,
    after=_measures,
    sets=schema.record(
        coverage=_share_of_1,
        threshold=_share_of_1,
        measured=_share_of_1,
        interval=_interval,
        mean_size=schema.number(0),
        empty=_count,
    ),
    decisions=schema.mapping(
        schema.record(
            threshold=_share_of_1,
            target=schema.optional(schema.text(100)),
            recall=schema.optional(_share_of_1),
            recall_interval=_interval,
            precision=schema.optional(_share_of_1),
            precision_interval=_interval,
        ),
        1_000_000,
    ),
)


@dataclass(frozen=True)
class _Images:
    """A part of the evaluated images.

    Attributes:
      logits: float64 ``(N, outputs)``.
      labels: class indices ``(N,)``.
      kind: how logits become probabilities.
    """

    logits: np.ndarray
    labels: np.ndarray
    kind: str

    def probabilities(self, temperature: float | None) -> np.ndarray:
        return scaled_probabilities(self.logits, self.kind, temperature)

    def of_label(self, temperature: float | None) -> tuple[float, ...]:
        """Return the probabilities of the labels, ascending, with float32's digits."""
        own = self.probabilities(temperature)[np.arange(len(self.labels)), self.labels]
        return tuple(float(f"{p:.9g}") for p in np.sort(own).tolist())

    def measures(self, temperature: float | None) -> dict[str, float]:
        """Return ECE, NLL in nats and top-1 accuracy."""
        probabilities = self.probabilities(temperature)
        correct = probabilities.argmax(axis=1) == self.labels
        bins = reliability_bins(probabilities.max(axis=1), correct)
        return {
            "ece": expected_calibration_error(bins),
            "nll": negative_log_likelihood(self.logits, self.labels, self.kind, temperature),
            "top1": float(correct.mean()),
        }


@dataclass(frozen=True)
class CalibrationResults:
    """A calibration, and what it does to the images that it was not fitted on.

    Attributes:
      calibration: to be stored with the run.
      measured: results on the held-out half, for JSON.
      lines: the same as text.
    """

    calibration: Calibration
    measured: dict[str, Any]
    lines: list[str]

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
      requests: the thresholds.

    Raises:
      UsageError: there is no such class.
      RunError: there are too few images, or what was requested cannot be reached.
    """
    predictions, source = evaluated.predictions, evaluated.loader.source
    info, step = read_description(workdir), evaluated.result["step"]
    kind = info.activation(evaluated.config.loss)
    names = list(info.class_names)
    for request in requests:
        if request.name not in names:
            raise UsageError(
                f"--decide: the run has no class {request.name!r}; it has {join_names(names)}"
            )
    if len(predictions) < MIN_IMAGES:
        raise RunError(
            f"a calibration needs at least {MIN_IMAGES} images, but {source.split!r} has"
            f" {len(predictions)}"
        )
    record = predictions.record
    images = [source.record_name(int(index)) for index in record]
    groups = None if source.groups is None else [source.groups[index] for index in record]
    first = assign_folds(images, predictions.label, groups, 2, SEED) == 0
    fitted, held_out = (
        _Images(predictions.logits[part].astype(np.float64), predictions.label[part], kind)
        for part in (first, ~first)
    )
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
    decisions = {}
    for request in requests:
        index = names.index(request.name)
        scores, positive = fitted.probabilities(value)[:, index], fitted.labels == index
        threshold = threshold_for(request, scores, positive)
        target = request.goal and f"{request.goal}={request.value:g}"
        decisions[request.name] = DecisionThreshold(threshold, target)
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
        fitted=fitted.of_label(value),
        held_out=held_out.of_label(value),
    )
    measured = {
        "temperature": value,
        "seed": SEED,
        "fitted": len(fitted.labels),
        "examples": len(held_out.labels),
        "before": held_out.measures(None),
        "after": held_out.measures(value),
        "sets": _measure_sets(calibration, held_out),
        "decisions": _measure_decisions(calibration, held_out, names),
    }
    lines = [f"calibrated   {line}" for line in measured_lines(measured)]
    if stored is not None and (dropped := stored.decisions.keys() - decisions.keys()):
        lines.append(
            f"calibrated   without the earlier thresholds of {join_names(sorted(dropped))}"
        )
    return CalibrationResults(calibration, measured, lines)


def _measure_sets(calibration: Calibration, images: _Images) -> dict[str, Any]:
    threshold = calibration.set_threshold(COVERAGE)
    sizes = (images.probabilities(calibration.temperature) >= threshold).sum(axis=1)
    covered, count = calibration.covered(threshold), len(images.labels)
    return {
        "coverage": COVERAGE,
        "threshold": threshold,
        "measured": covered / count,
        "interval": wilson_interval(covered, count),
        "mean_size": float(sizes.mean()),
        "empty": int((sizes == 0).sum()),
    }


def _measure_decisions(
    calibration: Calibration, images: _Images, names: list[str]
) -> dict[str, Any]:
    """Return precision and recall of the decided classes, with 95 % Wilson intervals."""
    outputs = output_names(names, images.logits.shape[1])
    decided = calibration.decide(images.probabilities(calibration.temperature), outputs)
    measured = {}
    for name, decision in calibration.decisions.items():
        index = names.index(name)
        positive, chosen = images.labels == index, decided == index
        hits = int((positive & chosen).sum())
        measured[name] = {"threshold": decision.threshold, "target": decision.target}
        for share, total in (("recall", positive), ("precision", chosen)):
            count = int(total.sum())
            measured[name] |= {
                share: hits / count if count else None,
                f"{share}_interval": wilson_interval(hits, count),
            }
    return measured


def measured_lines(measured: dict[str, Any]) -> list[str]:
    """Return the results on the held-out half as text, from their JSON."""
    before, after, sets = (measured[name] for name in ("before", "after", "sets"))
    low, high = map(format_percent, sets["interval"])
    temperature = measured["temperature"]
    lines = [
        f"{'without a temperature' if temperature is None else f'temperature {temperature:.4g}'},"
        f" fitted on {measured['fitted']:,} images (stratified, seed {measured['seed']}); on the"
        f" other {measured['examples']:,}: ECE {format_percent(before['ece'], 2)} →"
        f" {format_percent(after['ece'], 2)}, NLL {before['nll']:.4f} → {after['nll']:.4f}, top-1"
        f" {format_percent(before['top1'], 2)} → {format_percent(after['top1'], 2)}",
        f"{format_percent(sets['coverage'], 0)} prediction sets hold the true class of"
        f" {format_percent(sets['measured'])} ({low} to {high}) of these; {sets['mean_size']:.2f}"
        f" classes on average, {sets['empty']:,} empty",
    ]
    for name, one in measured["decisions"].items():
        target = f" for {one['target']}" if one["target"] else ""
        shares = ", ".join(f"{share} {_share(one, share)}" for share in ("recall", "precision"))
        lines.append(f"decide {name} from {one['threshold']:.4g}{target}: {shares}")
    return list(map(one_line, lines))


def _share(measured: dict[str, Any], name: str) -> str:
    low, high = map(format_percent, measured[f"{name}_interval"])
    share = measured[name]
    return "unknown" if share is None else f"{format_percent(share)} ({low} to {high})"
