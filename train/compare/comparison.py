"""A comparison of several runs: what the console and the page show."""

from collections.abc import Sequence
from dataclasses import dataclass

from train.compare import grouping, tables
from train.compare.cross_validation import CrossValidation, cross_validations
from train.compare.pair import words
from train.compare.pair.differences import Differences, choose_pair, compute_differences
from train.compare.pair.predictions import pair_predictions
from train.compare.runs import RunSummary
from train.compare.text import aligned, wrapped
from train.runtime.errors import RunError

FOLDS = "Mean ± sample standard deviation over folds, and metrics of all held-out images together"
_SEEDS = "mean ± sample standard deviation over runs that differ only in the seed"
_MAX_PAIRS = 4  # pairs of runs that are compared by image


@dataclass(frozen=True)
class Comparison:
    """A comparison.

    Attributes:
      runs: the runs, in the order in which they were given.
      cohorts: the runs apart by metric and evaluated images, the best first.
      groups: runs that differ only in the seed.
      validations: cross-validations.
      differences: of two runs of each cohort.
      unpaired: why the images of other pairs cannot be compared.
    """

    runs: list[RunSummary]
    cohorts: list[list[RunSummary]]
    groups: list[list[RunSummary]]
    validations: list[CrossValidation]
    differences: list[Differences]
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
            found.append(compute_differences(pair_predictions(first, second)))
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
    if len(comparison.cohorts) > 1:
        lines += wrapped(tables.APART)
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
        lines += ["", *(line for text in words.lines(found) for line in wrapped(text))]
    for text in comparison.unpaired:
        lines += ["", *wrapped(text)]
    keys = tables.keys_table(runs)
    if keys.rows:
        lines += ["", "keys that differ:"]
        for name, values, effect in keys.rows:
            note = "; no effect on results" if effect == "no" else ""
            lines += wrapped(f"{name}  {values}{note}")
    return "\n".join(lines)


def _cautions(runs: Sequence[RunSummary]) -> list[str]:
    """Return each caution once."""
    texts = dict.fromkeys(run.baseline.caution for run in runs if not run.baseline.is_above)
    return [line for text in texts for line in wrapped(f"! {text}")]
