"""The tiles of ``report.html`` on the newest evaluation; the first is the run's ``eval.metric``."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from train.config.registries import larger_is_better, parse_top_k
from train.reporting.cautions import is_above_baseline
from train.runtime.formatting import format_percent

Tile = tuple[str, str, str]  # name, value and remark
_TITLES = {
    **{"f1_macro": "macro F1", "auroc_macro": "macro AUROC"},
    **{"average_precision_macro": "macro average precision", "mcc": "Matthews' coefficient"},
    **{"map": "mAP", "map_baseline": "mAP baseline", "f1_micro": "micro F1"},
}
_SHARES = ("baseline", "map", "map_baseline", "exact_match")  # shown in percent
_USUAL = ("top1", "top5", "loss", "baseline")


def title(metric: str) -> str:
    """Return a metric's name for people."""
    k = parse_top_k(metric)
    return f"top-{k}" if k else _TITLES.get(metric, metric.replace("_", " "))


def format_metric(metric: str, value: float) -> str:
    """Return a metric's value as text."""
    return format_percent(value, 2) if metric in _SHARES or parse_top_k(metric) else f"{value:.4g}"


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


def evaluation_tiles(
    evaluated: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Mapping[str, Any]],
    saved: Collection[int],
    metric: str,
) -> list[Tile]:
    """Return the tiles of the newest evaluation and of the best one.

    Args:
      evaluated: rows of metrics with an evaluation, at least one.
      evaluations: evaluations of the report, as in ``report.json``.
      saved: steps with a checkpoint.
      metric: the run's ``eval.metric``.
    """
    newest = {
        name.removeprefix("eval/"): value
        for name, value in evaluated[-1].items()
        if name.startswith("eval/") and name != "eval/bad" and value is not None
    }
    names = dict.fromkeys((metric, *_USUAL, *newest))
    remarks = {"top1": _top1_remark(evaluated[-1], evaluations), "baseline": "largest class"}
    remarks["map_baseline"] = "ranking at random"
    if "map_baseline" in newest:
        remarks["map"] = f"at random {format_percent(newest['map_baseline'], 2)}"
    if metric != "top1" and remarks["top1"].startswith("not "):
        remarks[metric] = "top-1 is not clearly above the baseline"
    tiles = [
        (f"evaluation {title(name)}", format_metric(name, newest[name]), remarks.get(name, ""))
        for name in names
        if name in newest
    ]
    best = best_row(evaluated, metric, saved)
    if best is not None:
        value = format_metric(metric, best[f"eval/{metric}"])
        tiles.append((f"best {title(metric)}", value, f"at step {best['step']:,}"))
    return tiles


def _top1_remark(row: Mapping[str, Any], evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the confidence interval of the newest top-1 accuracy, and the baseline."""
    baseline = row.get("eval/baseline")
    share = "" if baseline is None else f"the baseline, {format_percent(baseline, 2)}"
    for one in evaluations.values():
        if (one["step"], one["top1"]) == (row["step"], row["eval/top1"]):
            low, high = (format_percent(end, 2) for end in one["top1_interval"])
            interval = f"95 % confidence interval {low} to {high}"
            if not share:
                return interval
            clearly = "" if is_above_baseline(one["top1_interval"], baseline) else "not clearly "
            return f"{clearly}above {share}; {interval}"
    return share
