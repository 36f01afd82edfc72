"""A comparison of several runs: what the console and the page show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.compare import class_iou, grouping, tables
from train.compare.cross_validation import CrossValidation, cross_validations
from train.compare.pair.differences import choose_pair
from train.compare.pair.kinds import PAIR_KINDS, compare_pair
from train.compare.runs import RunSummary
from train.compare.text import aligned, wrapped
from train.runtime.errors import RunError
from train.runtime.formatting import pluralize

FOLDS = "Mean ± sample standard deviation over folds, and metrics of all held-out images together"
_SEEDS = "mean ± sample standard deviation over runs that differ only in the seed"
_MAX_CLASSES = 10  # with their IoU
_MAX_PAIRS = 4  # pairs of runs that are compared by image


@dataclass(frozen=True)
class Comparison:
    """A comparison.

    Attributes:
      runs: the runs, in the order in which they were given.
      cohorts: the runs apart by metric and evaluated images, the best first.
      groups: runs that differ only in the seed.
      validations: cross-validations.
      differences: of two runs of each cohort, as :mod:`train.compare.pair.kinds` has them.
      unpaired: why the images of other pairs cannot be compared.
    """

    runs: list[RunSummary]
    cohorts: list[list[RunSummary]]
    groups: list[list[RunSummary]]
    validations: list[CrossValidation]
    differences: list[Any]
    unpaired: list[str]


def compare_runs(runs: list[RunSummary]) -> Comparison:
    """Return the comparison of some runs."""
    cohorts, groups = grouping.cohorts(runs), grouping.grouped(runs)
    found, unpaired, pairs = [], [], {}
    for cohort in cohorts:
        pair = choose_pair(runs, cohort)
        if pair is not None:
            pairs[tuple(map(id, pair))] = pair  # two runs may be in two cohorts
    for first, second in list(pairs.values())[:_MAX_PAIRS]:
        try:
            found.append(compare_pair(first, second))
        except RunError as error:
            unpaired.append(f"Images of two runs are not compared: {error}")
    return Comparison(runs, cohorts, groups, cross_validations(runs), found, unpaired)


def as_text(comparison: Comparison) -> str:
    """Return the comparison for the console."""
    lines, runs = [], comparison.runs
    for cohort in comparison.cohorts:
        lines += [
            *wrapped(f"{tables.cohort_title(cohort)}:"),
            *aligned(tables.results_table(cohort)),
        ]
        lines += _classes(cohort)
    if len(comparison.cohorts) > 1:
        lines += wrapped(tables.APART)
    if text := grouping.describe_other_classes(runs):
        lines += wrapped(text)
    if any(run.remark for run in runs):
        lines += wrapped("* not finished, never evaluated, or a duplicate of another run")
    lines += _cautions(runs)
    seeds = tables.seeds_table(comparison.groups)
    if seeds.rows:
        lines += ["", *wrapped(f"{_SEEDS}:"), *aligned(seeds)]
    if comparison.validations:
        lines += ["", *wrapped(f"{FOLDS}:"), *aligned(tables.folds_table(comparison.validations))]
        for each in comparison.validations:
            lines += wrapped(f"not pooled: {each.remark}") if each.remark else []
    for found in comparison.differences:
        texts = PAIR_KINDS[found.kind].lines(found)
        lines += ["", *(line for text in texts for line in wrapped(text))]
    for text in comparison.unpaired:
        lines += ["", *wrapped(text)]
    keys = tables.keys_table(runs)
    if keys.rows:
        lines += ["", "keys that differ:"]
        for name, values, effect in keys.rows:
            note = "; no effect on results" if effect == "no" else ""
            lines += wrapped(f"{name}  {values}{note}")
    return "\n".join(lines)


def _classes(cohort: Sequence[RunSummary]) -> list[str]:
    """Return the classes of the lowest IoU, of runs of segmentation."""
    table = class_iou.iou_table(cohort)
    if table is None:
        return []
    more = len(table.rows) - _MAX_CLASSES
    lines = ["", f"{class_iou.TITLE}:", *aligned(table._replace(rows=table.rows[:_MAX_CLASSES]))]
    lines += wrapped(f"and {pluralize(more, 'more class')} on the page") if more > 0 else []
    note = class_iou.describe_omitted(cohort)
    return [*lines, *(wrapped(note) if note else [])]


def _cautions(runs: Sequence[RunSummary]) -> list[str]:
    """Return each caution once."""
    texts = dict.fromkeys(run.baseline.caution for run in runs if not run.baseline.is_above)
    return [line for text in texts for line in wrapped(f"! {text}")]
