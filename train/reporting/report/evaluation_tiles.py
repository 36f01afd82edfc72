"""The tiles of ``report.html`` on the newest evaluation; the first is the run's ``eval.metric``."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from train.config.registries import larger_is_better, parse_top_k
from train.reporting.cautions import is_above_baseline, top1_interval
from train.reporting.html_page import MainTile, Tile
from train.reporting.metric_names import BASELINES, format_metric, is_percentage, title
from train.reporting.task_reports import part_report
from train.runtime.formatting import format_number, format_percent, pluralize

_RANDOM_RANKING = ("map", "auroc_macro")  # whose baseline is a ranking at random


def best_row(rows: Sequence[Mapping[str, Any]], metric: str, saved: Collection[int] = ()) -> Any:
    """Return the row of the best evaluation; None if none has the metric.

    Among equals it is the one of ``--step best``: the last with a checkpoint.
    """
    sign = 1 if larger_is_better(metric) else -1
    name = f"eval/{metric}"
    with_metric = [row for row in rows if row.get(name) is not None]
    return max(
        with_metric, key=lambda r: (sign * r[name], r["step"] in saved, r["step"]), default=None
    )


def main_tile(
    newest: Mapping[str, Any], part: Mapping[str, Any] | None, metric: str, images: int | None
) -> MainTile:
    """Return the tile of the run's ``eval.metric`` with its interval and its baseline.

    Args:
      newest: the newest row of metrics that has an evaluation.
      part: that evaluation in ``report.json``; None if it is not there.
      metric: the run's ``eval.metric``, which the row has.
      images: number of evaluated images; None if unknown.
    """
    value, interval = newest[f"eval/{metric}"], _interval(newest, part, metric, images)
    baseline = part_report(part).baseline(metric, part) if part else None
    if baseline is None:
        baseline = newest.get(f"eval/{BASELINES.get(metric)}")
    name = f"evaluation {title(metric)}"
    low, high = interval or (value, value)
    remarks = []
    if interval:
        remarks.append(f"95 % confidence interval {_short(metric, low)} to {_short(metric, high)}")
    if baseline is not None:
        what = "at random" if metric in _RANDOM_RANKING else "always the largest class"
        text = f"baseline {_short(metric, baseline)} ({what})"
        remarks.append(text if low > baseline else f"not clearly above the {text}")
    elif _is_top1_weak(newest, part, images):
        remarks.append("top-1 is not clearly above the baseline")
    ends = (value, low, high, baseline)
    is_share = metric != "loss" and all(one is None or 0 <= one <= 1 for one in ends)
    return MainTile(name, _short(metric, value), "; ".join(remarks), ends if is_share else None)


def _short(metric: str, value: float) -> str:
    """Return a metric with as many digits as a first look needs."""
    if is_percentage(metric):
        return format_percent(value)
    return format_number(value, 3)


def _interval(
    newest: Mapping[str, Any], part: Mapping[str, Any] | None, metric: str, images: int | None
) -> Sequence[float] | None:
    if part:
        top_k = part.get("top_k") or {}
        return top_k[metric]["interval"] if metric in top_k else part.get(f"{metric}_interval")
    if parse_top_k(metric) and images:
        return top1_interval(newest[f"eval/{metric}"], images)
    return None


def _is_top1_weak(
    newest: Mapping[str, Any], part: Mapping[str, Any] | None, images: int | None
) -> bool:
    interval, baseline = _interval(newest, part, "top1", images), newest.get("eval/baseline")
    return bool(interval) and baseline is not None and not is_above_baseline(interval, baseline)


def best_tiles(
    evaluated: Sequence[Mapping[str, Any]], saved: Collection[int], metric: str
) -> list[Tile]:
    """Return the tile of the best evaluation; none without the metric."""
    best = best_row(evaluated, metric, saved)
    if best is None:
        return []
    of = f" of {pluralize(len(evaluated), 'evaluation')}" if len(evaluated) > 1 else ""
    name, value = f"best {title(metric)}{of}", _short(metric, best[f"eval/{metric}"])
    return [(name, value, f"at step {best['step']:,}")]


def all_metrics(newest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of all metrics of a row."""
    return [
        (title(name.removeprefix("eval/")), format_metric(name.removeprefix("eval/"), value))
        for name, value in newest.items()
        if name.startswith("eval/") and name != "eval/bad" and value is not None
    ]
