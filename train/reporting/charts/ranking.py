"""Precision–recall and ROC curves of an evaluation."""

from collections.abc import Mapping
from typing import Any

from flax_resnet.text import truncate
from train.reporting.charts.panel import Panel, Scatter, Series
from train.runtime.formatting import format_percent

_CHANCE = 7  # color of a ranking at random
_MAX_NAME = 40  # characters in the legend


def panels(rankings: Mapping[str, Any]) -> list[Panel]:
    """Return the precision–recall and the ROC curve of each class or mean, with its area.

    Args:
      rankings: as in ``train.reporting.rankings``.
    """
    curves = rankings["curves"]
    name = f" of {_name(rankings, curves[0])}" if len(curves) == 1 else ""
    axes = {"low": 0.0, "high": 1.0, "x_high": 1.0, "last_values": False}
    by_chance = [Series("at random", [(0.0, 0.0), (1.0, 1.0)], _CHANCE)]
    share = curves[0]["positives"]
    baseline = [Series("at random", [(0.0, share), (1.0, share)], _CHANCE)]
    return [
        Panel(
            f"precision–recall curve{name}",
            baseline * (len(curves) == 1) + _lines(rankings, "precision_recall", "AP"),
            *("recall", "precision"),
            scatter=_marks(curves, "recall", "precision"),
            **axes,
        ),
        Panel(
            f"ROC curve{name}",
            by_chance + _lines(rankings, "roc", "AUROC"),
            *("false positive rate", "true positive rate (recall)"),
            scatter=_marks(curves, "false_positive_rate", "recall"),
            **axes,
        ),
    ]


def explanation(rankings: Mapping[str, Any]) -> str:
    """Return what the curves are of, as a sentence."""
    curves, classes = rankings["curves"], rankings["classes"]
    named = [one["name"] for one in curves if one["kind"] == "class"]
    if len(curves) == 1:
        share = format_percent(curves[0]["positives"])
        text = f"Positive is the class {truncate(named[0])}, which {share} of the images have."
    else:
        which = f"the {len(named)} classes with the lowest average precision"
        which = which if len(named) < classes else "all classes"
        text = (
            f"Each class against the rest: {which}, the mean over {classes:,} classes (macro), and"
            " the probabilities of all classes together (micro)."
        )
    return f"{text} AP is the average precision, AUROC the area under the ROC curve."


def _name(rankings: Mapping[str, Any], curve: Mapping[str, Any]) -> str:
    if curve["kind"] == "macro":
        return f"mean of {rankings['classes']:,} classes (macro)"
    return (
        "all together (micro)" if curve["kind"] == "micro" else truncate(curve["name"], _MAX_NAME)
    )


def _lines(rankings: Mapping[str, Any], curve: str, area: str) -> list[Series]:
    key, lines = "average_precision" if area == "AP" else "auroc", []
    for index, one in enumerate(rankings["curves"]):
        numbers = iter(one[curve])
        points = list(zip(numbers, numbers, strict=True))
        color = index + (index >= _CHANCE)
        lines.append(Series(f"{_name(rankings, one)}: {area} {one[key]:.4f}", points, color))
    return lines


def _marks(curves: list[Mapping[str, Any]], x: str, y: str) -> list[Scatter]:
    """Return the stored thresholds as points."""
    marks = [
        (one["name"], one["mark"])
        for one in curves
        if one.get("mark") and one["mark"]["precision"] is not None
    ]
    if not marks:
        return []
    label = "stored threshold"
    if len(marks) == 1:
        mark = marks[0][1]
        label += (
            f" {mark['threshold']:.3g}: recall {format_percent(mark['recall'])}, precision"
            f" {format_percent(mark['precision'])}"
        )
    names = [f"{truncate(name, _MAX_NAME)}, threshold {m['threshold']:.3g}" for name, m in marks]
    return [Scatter(label, [(mark[x], mark[y]) for _, mark in marks], 1, names)]
