"""The metrics of always answering the largest class, from the counts of the classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from train.config.registries import parse_top_k

_CHANCE = {"kappa": 0.0, "mcc": 0.0, "auroc_macro": 0.5}


def majority_metric(metric: str, part: Mapping[str, Any]) -> float | None:
    """Return a metric of always answering the largest class; None where that has no meaning.

    For top-k these are the k largest classes, for a ranking its expectation at random.

    Args:
      metric: its name.
      part: an evaluation as in ``report.json``.
    """
    if metric == "map":
        return part.get("map_baseline")
    if "task" in part:
        return part.get("baseline") if metric == "top1" else None
    counts = sorted((one["examples"] for one in part["classes"] if one["examples"]), reverse=True)
    return _of_counts(metric, counts) if counts else None


def _of_counts(metric: str, counts: Sequence[int]) -> float | None:
    total = sum(counts)
    if k := parse_top_k(metric):
        return sum(counts[:k]) / total
    if metric == "balanced_accuracy":
        return 1 / len(counts)
    if metric == "f1_macro":  # precision is the share of the class, recall 1
        share = counts[0] / total
        return 2 * share / (1 + share) / len(counts)
    return _CHANCE.get(metric)
