"""How well stored thresholds decide: recall and precision, as JSON and as text."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flax_resnet.calibration import DecisionThreshold
from train.reporting.classification_metrics import wilson_interval
from train.runtime.formatting import format_percent

MAX_LINES = 30  # of classes


def measure_decisions(
    decisions: Mapping[str, DecisionThreshold],
    masks: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Return precision and recall of the decided classes, with 95 % Wilson intervals.

    Args:
      decisions: the thresholds by class name.
      masks: returns of a class whether the images are of it, and are decided to be, bool ``(N,)``.
    """
    measured = {}
    for name, decision in decisions.items():
        positive, chosen = masks(name)
        hits = int((positive & chosen).sum())
        measured[name] = {"threshold": decision.threshold, "target": decision.target}
        for share, total in (("recall", positive), ("precision", chosen)):
            count = int(total.sum())
            measured[name] |= {
                share: hits / count if count else None,
                f"{share}_interval": wilson_interval(hits, count),
            }
    return measured


def decision_lines(decisions: Mapping[str, Any]) -> list[str]:
    """Return the results of :func:`measure_decisions` as text, of many classes the first ones."""
    lines = []
    for name, one in list(decisions.items())[:MAX_LINES]:
        target = f" for {one['target']}" if one["target"] else ""
        shares = ", ".join(f"{share} {_share(one, share)}" for share in ("recall", "precision"))
        lines.append(f"decide {name} from {one['threshold']:.4g}{target}: {shares}")
    if len(decisions) > MAX_LINES:
        more = len(decisions) - MAX_LINES
        lines.append(f"{more:,} more thresholds are stored; evaluation.json has their results")
    return lines


def _share(measured: Mapping[str, Any], name: str) -> str:
    low, high = map(format_percent, measured[f"{name}_interval"])
    share = measured[name]
    return "unknown" if share is None else f"{format_percent(share)} ({low} to {high})"
