"""Plain lines on an evaluation that is worse than its first number looks."""

from collections.abc import Sequence
from typing import Any

from train.reporting.classification_metrics import ClassMetrics, wilson_interval
from train.runtime.formatting import format_percent, pluralize

_MAX_CLASSES = 5  # named in one line


def is_above_baseline(interval: Sequence[float], baseline: float) -> bool:
    """Return whether top-1 accuracy is clearly above always predicting the largest class."""
    return interval[0] > baseline


def top1_interval(top1: float, examples: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a top-1 accuracy."""
    return wilson_interval(round(top1 * examples), examples)


def cautions(result: dict[str, Any], classes: Sequence[ClassMetrics]) -> list[str]:
    """Return a line if top-1 is not clearly above the baseline, and one on classes rarely found.

    Args:
      result: result of an evaluation with ``baseline``.
      classes: its metrics by class.
    """
    lines = []
    interval = top1_interval(result["top1"], result["examples"])
    if not is_above_baseline(interval, result["baseline"]):
        largest = max(classes, key=lambda one: one.examples)
        low, high = (format_percent(end, 2) for end in interval)
        lines.append(
            f"top-1 {format_percent(result['top1'], 2)} is not clearly above the baseline: always"
            f" answering {largest.name!r} gives {format_percent(result['baseline'], 2)}, and the"
            f" 95 % confidence interval (Wilson) is {low} to {high}"
        )
    return lines + low_recall_lines(classes)


def low_recall_lines(classes: Sequence[Any], advice: str = "") -> list[str]:
    """Return a line on the classes with a recall under half of the mean, if there are any.

    Args:
      classes: metrics by class, with ``name``, ``examples`` and ``recall``.
      advice: what may help.
    """
    present = [one for one in classes if one.examples]
    mean = sum(one.recall for one in present) / max(1, len(present))
    low = sorted((one for one in present if one.recall < mean / 2), key=lambda one: one.recall)
    if not low:
        return []
    named = [
        f"{one.name!r} {format_percent(one.recall)} of {pluralize(one.examples, 'image')}"
        for one in low[:_MAX_CLASSES]
    ]
    more = f" and {len(low) - _MAX_CLASSES:,} more" if len(low) > _MAX_CLASSES else ""
    advice = advice and f"; {advice}"
    return [
        f"recall under half of the mean, {format_percent(mean)}: {', '.join(named)}{more}{advice}"
    ]
