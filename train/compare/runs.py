"""The runs of a comparison, as they are in their workdirs."""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flax_resnet.text import one_line
from flax_resnet.weights.run_info import RunInfo
from train.compare.baselines import (
    Baseline,
    compare_with_baseline,
    metric_interval,
    reported_part,
)
from train.config.access import flatten
from train.data.splits import HELD_OUT, parse_fold
from train.reporting.report.progress import progress
from train.runtime.errors import RunError, warn
from train.workdir import run_files
from train.workdir.metrics_log import evaluated_rows, read_rows


@dataclass(eq=False)
class RunSummary:
    """One run.

    Attributes:
      path: workdir.
      name: a name that no other run of the comparison has.
      values: configuration, as ``{"group.key": value}``.
      rows: rows of ``metrics.jsonl``.
      step: last logged step.
      remark: why the run is excluded from means, such as that it has not finished; else empty.
      images: images of the evaluation split; None if unknown.
      data: equal for runs that are evaluated on the same images, as far as is known.
      training_data: equal for runs that were trained on the same images and labels, as far as is
        known.
      copies: whether another run of the comparison has the same configuration and seed.
      class_names: of the run's data; empty if unknown.
      kind: of its outputs, see :class:`flax_resnet.weights.run_info.RunInfo`.
    """

    path: str
    name: str
    values: dict[str, Any]
    rows: list[dict[str, float]]
    step: int
    remark: str
    images: int | None = None
    data: Hashable = None
    training_data: Hashable = None
    copies: bool = False
    class_names: tuple[str, ...] = ()
    kind: str | None = None

    @cached_property
    def baseline(self) -> Baseline:
        """How the last evaluation compares with its baseline."""
        return compare_with_baseline(self.path, self.results, self.images, warn)

    @cached_property
    def evaluated(self) -> list[dict[str, float]]:
        """The rows with an evaluation."""
        return evaluated_rows(self.rows)

    @property
    def results(self) -> dict[str, float]:
        """The last evaluation."""
        return self.evaluated[-1] if self.evaluated else {}

    @property
    def metric(self) -> str:
        """The run's ``eval.metric``."""
        return self.values.get("eval.metric") or "top1"  # as in runs of older versions

    @property
    def value(self) -> float | None:
        """The metric in the last evaluation."""
        return self.results.get(f"eval/{self.metric}")

    @cached_property
    def interval(self) -> Sequence[float] | None:
        """The 95 % interval of :attr:`value`; None if it is unknown."""
        return metric_interval(self.path, self.metric, self.results, self.images, warn)

    @cached_property
    def part(self) -> Mapping[str, Any]:
        """What the report of the run has on the last evaluation; empty if it has nothing."""
        return reported_part(self.path, self.metric, self.results, warn)

    @property
    def is_complete(self) -> bool:
        """Whether the run has finished and was evaluated."""
        return not self.remark or self.copies


def read(path: str) -> RunSummary:
    """Read a run.

    Raises:
      RunError: there is no run in ``path``, or it has no metrics.
    """
    values = flatten(run_files.read_config(path))
    rows = read_rows(path, warn)
    if not rows:
        raise RunError(f"{path!r} has not logged any metrics yet (metrics.jsonl is empty)")
    step, total = progress(rows, run_files.read_sessions(path, warn))
    remark = ""
    if total is not None and step < total and not run_files.ended_early(path):
        remark = f"has not finished: step {step:,} of {total:,}"
    if not evaluated_rows(rows):
        remark = f"{remark or 'has'}{' and has' if remark else ''} never been evaluated"
    name = one_line(os.path.basename(os.path.abspath(path)))
    info = run_files.find_description(path)
    counts = list(info.images.values()) if info else []
    images = counts[-1] if counts else None  # of training and evaluation, in this order
    data = _data(values, info), _training_data(info)
    names, kind = (info.class_names, info.kind) if info else ((), None)
    return RunSummary(
        path, name, values, rows, step, remark, images, *data, class_names=names, kind=kind
    )


def evaluation_split(values: dict[str, Any]) -> str:
    """Return the name of the split on which a run is evaluated."""
    return HELD_OUT if values.get("dataset.fold") else values.get("dataset.eval_split", "")


def _data(values: dict[str, Any], info: RunInfo | None) -> Hashable:
    """Return what is equal for runs that are evaluated on the same images.

    The folds of a division count as the same: each image is held out in one of them.
    """
    known = values.get("dataset.name"), info and info.class_names
    if fold := values.get("dataset.fold"):
        return *known, "fold", parse_fold(fold)[1]
    if info is None:
        return *known, evaluation_split(values)
    split, images = list(info.images.items())[-1] if info.images else ("", None)
    return *known, split, images, info.records.get(split)


def _training_data(info: RunInfo | None) -> Hashable:
    """Return what is equal for runs that were trained on the same images and labels."""
    if info is None or not info.images:
        return None
    split, images = next(iter(info.images.items()))  # of training and evaluation, in this order
    return images, info.records.get(split)


def disambiguate_names(runs: Sequence[RunSummary]) -> None:
    """Name runs by their whole paths if their folders have the same name."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = one_line(run.path)
