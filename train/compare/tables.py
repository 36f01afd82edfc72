"""The tables of a comparison: results of runs, means over seeds and folds, keys that differ."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any, NamedTuple

from flax_resnet.text import one_line
from train.compare import grouping
from train.compare.cross_validation import CrossValidation
from train.compare.runs import RunSummary
from train.config.keys import KEYS
from train.config.registries import larger_is_better, parse_top_k
from train.reporting.metric_names import BASELINES, format_metric, title
from train.reporting.report.configuration import format_value
from train.reporting.report.evaluation_tiles import best_row
from train.reporting.report.progress import throughput
from train.runtime.formatting import format_percent, join_names, pluralize

INTERVAL = "95 % interval"
APART = (
    "Runs with another metric, or evaluated on other images, are in tables of their own: their"
    " numbers cannot be compared."
)
_MAX_VALUES = 12  # of a key that are listed
_percent = partial(format_percent, decimals=2)
_Column = tuple[str, str, Callable[[float], str]]  # key, title, format
_RESULTS: tuple[_Column, ...] = (
    ("eval/map", title("map"), _percent),
    ("eval/map_baseline", f"{title('map')} baseline", _percent),
    ("eval/miou", title("miou"), _percent),
    ("eval/miou_baseline", title("miou_baseline"), _percent),
    ("eval/pixel_accuracy", title("pixel_accuracy"), _percent),
    ("eval/top1", "top-1", _percent),
    ("eval/baseline", "baseline", _percent),
    ("eval/mean_accuracy", title("mean_accuracy"), _percent),
    ("eval/top5", "top-5", _percent),
    ("eval/loss", "loss", "{:.4f}".format),
)


class TextTable(NamedTuple):
    """A table of text.

    Attributes:
      head: titles of the columns.
      rows: one cell per column each.
      marked: indices of the rows to emphasize.
    """

    head: list[str]
    rows: list[list[str]]
    marked: tuple[int, ...] = ()


def cohort_title(cohort: Sequence[RunSummary]) -> str:
    """Return what the runs of a cohort are compared by, and on which images."""
    run = cohort[0]
    images = f": {pluralize(run.images, 'image')}" if run.images else ""
    data = run.values.get("dataset.name", "unknown data")
    fold = "of each fold" if run.values.get("dataset.fold") else "of the evaluation split"
    return f"Results by {title(run.metric)} on {data}{images} {fold}"


def results_table(cohort: Sequence[RunSummary]) -> TextTable:
    """Return one row per run: the metric, the keys that differ, and further results.

    Args:
      cohort: runs with the same metric, in their order.
    """
    metric = cohort[0].metric
    results = _in_order(_result_columns([run.results for run in cohort]), f"eval/{metric}")
    keys = grouping.differing_keys(cohort)
    titles = [name for _, name, _ in results]
    short = grouping.short_names(keys, [*titles, "run", "step"])
    best, best_title = grouping.best(cohort), f"best {title(metric)}"
    has_interval = any(run.interval for run in cohort)
    shown, others = results[:1], results[1:]
    head = ["run", *titles[:1], *short, *[INTERVAL] * has_interval]
    head += [*titles[1:], "step", best_title, "images/s"]
    rows, marked = [], []
    for number, run in enumerate(cohort):
        values = [_cell(run.results.get(key), form) for key, _, form in (*shown, *others)]
        if not run.baseline.is_above:
            names = [key for key, _, _ in results]
            values[names.index(run.baseline.metric)] += " !"
        if run in best:
            marked.append(number)
            values[0] += " best"
        interval = [_interval(run)] * has_interval
        values[0] += " *" if run.remark else ""
        last = [f"{run.step:,}", _best_cell(run), _cell(throughput(run.rows), "{:,.0f}".format)]
        own = [_value(run, key) for key in keys]
        rows.append([run.name, *values[:1], *own, *interval, *values[1:], *last])
    return TextTable(head, rows, tuple(marked))


def _in_order(columns: Sequence[_Column], metric: str) -> list[_Column]:
    """Return the columns with that of the metric first, and its baseline second."""
    metric_name = metric.removeprefix("eval/")
    first = (metric, f"eval/{BASELINES.get(metric_name)}")
    if metric not in [key for key, _, _ in columns]:  # never evaluated, or undefined
        columns = [_own_column(metric), *columns]
    columns = sorted(columns, key=lambda c: first.index(c[0]) if c[0] in first else len(first))
    own = partial(format_metric, metric_name)
    usual = {key for key, _, _ in _RESULTS}
    return [(k, t, own if k == metric and k not in usual else f) for k, t, f in columns]


def _value(run: RunSummary, key: str) -> str:
    return str(run.values.get(key, KEYS[key].default))


def _interval(run: RunSummary) -> str:
    if run.interval is None:
        return "–"
    low, high = (format_metric(run.metric, end) for end in run.interval)
    return f"{low.removesuffix(' %')} to {high}"


def _best_cell(run: RunSummary) -> str:
    """Return the best value of the run's metric in any of its evaluations."""
    best = best_row(run.evaluated, run.metric)
    return _cell(best and best[f"eval/{run.metric}"], partial(format_metric, run.metric))


def _result_columns(results: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """Return the columns that some of the results have: the usual ones, and own metrics."""
    names = {name for one in results for name in one if name.startswith("eval/")}
    usual = [column for column in _RESULTS if column[0] in names]
    own = sorted(names - {name for name, _, _ in _RESULTS} - {"eval/bad"})
    return usual + [_own_column(name) for name in own]


def _own_column(name: str) -> _Column:
    metric = name.removeprefix("eval/")
    return name, title(metric), _percent if parse_top_k(metric) else "{:.4f}".format


def over_seeds(group: Sequence[RunSummary]) -> dict[str, list[float]]:
    """Return the values of each result of finished runs, if there are at least two."""
    finished = [run.results for run in group if not run.remark]
    values = {
        key: [results[key] for results in finished if results.get(key) is not None]
        for key, _, _ in _result_columns(finished)
    }
    return {key: numbers for key, numbers in values.items() if len(numbers) > 1}


def seeds_table(groups: Sequence[Sequence[RunSummary]]) -> TextTable:
    """Return one row per group of runs that differ only in the seed, the best mean first.

    Results are the mean and the sample standard deviation (n - 1).
    """
    scored = [(group, results) for group in groups if (results := over_seeds(group))]
    scored.sort(key=lambda item: _mean_rank(*item))
    metric = scored[0][0][0].metric if scored else "top1"
    columns = _in_order(_result_columns([results for _, results in scored]), f"eval/{metric}")
    keys = grouping.differing_keys([run for group, _ in scored for run in group])
    rows = []
    for group, results in scored:
        name = grouping.group_name(group, keys) or join_names([run.name for run in group], 3)
        shown, *others = _means(results, columns)
        seeds = str(max(map(len, results.values())))
        rows.append([one_line(name), shown, seeds, *others])
    shown, *others = (name for _, name, _ in columns)
    return TextTable(["configuration", shown, "seeds", *others], rows)


def _mean_rank(group: Sequence[RunSummary], results: Mapping[str, Sequence[float]]) -> float:
    values = results.get(f"eval/{group[0].metric}")
    if not values:
        return math.inf
    return -mean(values) if larger_is_better(group[0].metric) else mean(values)


def folds_table(validations: Sequence[CrossValidation]) -> TextTable:
    """Return two rows per cross-validation.

    The first has the mean and the sample standard deviation (n - 1) over the folds, the second the
    metrics of all held-out images together.
    """
    keys = _result_columns([run.results for each in validations for run in each.runs])
    rows = []
    for each in validations:
        names = join_names([run.name for run in each.runs], 3)
        means = _means(over_seeds(each.runs), keys)
        rows.append([names, f"{len(each.runs)} of {each.folds}", *means])
        if each.pooled:
            pooled = [_cell(each.pooled.get(key), form) for key, _, form in keys]
            rows.append([f"all {each.images:,} held-out images", "pooled", *pooled])
    return TextTable(["runs", "folds", *(name for _, name, _ in keys)], rows)


def _means(over: Mapping[str, Sequence[float]], keys: Sequence[_Column]) -> list[str]:
    return [
        _cell(over.get(key), lambda v, form=form: f"{form(mean(v))} ± {form(stdev(v))}")
        for key, _, form in keys
    ]


def keys_table(runs: Sequence[RunSummary]) -> TextTable:
    """Return the keys that differ, with their values and how many runs have each."""
    rows = []
    for name, values in grouping.differences(runs):
        counts = Counter(map(format_value, values)).items()
        listed = [f"{value} ({pluralize(count, 'run')})" for value, count in counts]
        effect = "yes" if grouping.has_effect(name, runs) else "no"
        rows.append([name, join_names(listed, _MAX_VALUES), effect])
    return TextTable(["key", "values", "affects results"], rows)


def _cell(value: Any, form: Callable[[Any], str]) -> str:
    return "–" if value is None else form(value)
