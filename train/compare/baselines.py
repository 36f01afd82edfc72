"""How far results can be trusted: their intervals, and the same answer or order for all images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from train.config.registries import parse_top_k
from train.reporting.cautions import is_above_baseline, top1_interval
from train.reporting.report.run_report import read_parts


class Baseline(NamedTuple):
    """How the last evaluation of a run compares with its baseline.

    Attributes:
      metric: the compared metric, as the key of ``metrics.jsonl``.
      is_above: whether it is clearly above the baseline, as far as is known.
      caution: what to say if it is not.
    """

    metric: str = "eval/top1"
    is_above: bool = True
    caution: str = (
        "not clearly above the baseline: the 95 % confidence interval (Wilson) of top-1 reaches"
        " down to the share of the largest class"
    )


_PIXELS = Baseline(
    "eval/miou",
    True,
    "not clearly above the baseline: the 95 % confidence interval (bootstrap) of mIoU reaches down"
    " to that of the largest class everywhere",
)
_RANKING = Baseline(
    "eval/map",
    True,
    "not clearly above the baseline: the 95 % confidence interval (bootstrap) of mAP reaches down"
    " to that of a ranking at random",
)


def compare_with_baseline(
    path: str, results: Mapping[str, Any], images: int | None, warn: Callable[[str], None]
) -> Baseline:
    """Return how an evaluation compares with its baseline.

    Args:
      path: the workdir.
      results: the last evaluation.
      images: images of the evaluation split; None if unknown.
      warn: receives a message if the report of the run is corrupt.
    """
    if results.get("eval/map_baseline") is not None:
        interval = _reported_interval(path, "map", results, warn)
        low = interval[0] if interval else results["eval/map"]
        return _RANKING._replace(is_above=low > results["eval/map_baseline"])
    if results.get("eval/miou_baseline") is not None:
        interval = _reported_interval(path, "miou", results, warn)
        low = interval[0] if interval else results["eval/miou"]
        return _PIXELS._replace(is_above=low > results["eval/miou_baseline"])
    baseline = results.get("eval/baseline")
    if baseline is None or results.get("eval/top1") is None or not images:
        return Baseline()
    examples = images - (results.get("eval/bad") or 0)
    interval = top1_interval(results["eval/top1"], int(examples))
    return Baseline(is_above=is_above_baseline(interval, baseline))


def metric_interval(
    path: str,
    metric: str,
    results: Mapping[str, Any],
    images: int | None,
    warn: Callable[[str], None],
) -> Sequence[float] | None:
    """Return the 95 % interval of a metric of the last evaluation; None if it is unknown.

    Args:
      path: the workdir.
      metric: as in ``config.eval.metric``.
      results: the last evaluation.
      images: images of the evaluation split; None if unknown.
      warn: receives a message if the report of the run is corrupt.
    """
    value = results.get(f"eval/{metric}")
    if value is None:
        return None
    if parse_top_k(metric):
        examples = images and int(images - (results.get("eval/bad") or 0))
        return top1_interval(value, examples) if examples else None
    return _reported_interval(path, metric, results, warn)


def _reported_interval(
    path: str, metric: str, results: Mapping[str, Any], warn: Callable[[str], None]
) -> Sequence[float] | None:
    """Return the interval of a metric in the report of the run, if it is of the same evaluation."""
    return reported_part(path, metric, results, warn).get(f"{metric}_interval")


def reported_part(
    path: str, metric: str, results: Mapping[str, Any], warn: Callable[[str], None]
) -> Mapping[str, Any]:
    """Return what the report of the run has on an evaluation; empty if it has nothing.

    Args:
      path: the workdir.
      metric: a metric by which the evaluation is found, as in ``config.eval.metric``.
      results: the evaluation.
      warn: receives a message if the report of the run is corrupt.
    """
    if results.get(f"eval/{metric}") is None:
        return {}
    identity = results["step"], results[f"eval/{metric}"]
    parts = read_parts(path, warn).get("evaluations", {}).values()
    same = [one for one in parts if (one["step"], one.get(metric)) == identity]
    return next((one for one in same if one.get(f"{metric}_interval")), next(iter(same), {}))
