"""The intersection over union of each class, of runs of segmentation on the same images."""

from collections.abc import Sequence

from flax_resnet.text import truncate
from train.compare.runs import RunSummary
from train.compare.tables import TextTable
from train.runtime.formatting import format_percent

TITLE = "IoU by class"
_MAX_RUNS = 12
_MAX_NAME = 40  # characters


def iou_table(cohort: Sequence[RunSummary]) -> TextTable | None:
    """Return one row per class, the lowest IoU of the first run first, and a column per run.

    Args:
      cohort: the runs, the best first; of more than 12 the others are left out.

    Returns:
      None if no report of a run has classes with IoU.
    """
    known = [run for run in cohort if any("iou" in one for one in run.part.get("classes", ()))]
    if not known:
        return None
    shown = known[:_MAX_RUNS]
    by_run = [{one["name"]: one for one in run.part["classes"]} for run in shown]
    first = by_run[0]
    total = max(1, sum(one["pixels"] for one in first.values()))
    rows = [
        [
            truncate(name, _MAX_NAME),
            format_percent(one["pixels"] / total),
            *(_iou(classes.get(name, {}).get("iou")) for classes in by_run),
        ]
        for name, one in sorted(first.items(), key=lambda item: _rank(item[1]["iou"]))
    ]
    names = [truncate(run.name, _MAX_NAME) for run in shown]
    return TextTable(["class", "share of the pixels", *names], rows)


def describe_omitted(cohort: Sequence[RunSummary]) -> str:
    """Return which runs of a cohort :func:`iou_table` leaves out, and why; empty if none."""
    without = [run.name for run in cohort if run.results and not run.part.get("classes")]
    known = len(cohort) - len(without)
    notes = []
    if known > _MAX_RUNS:
        notes.append(f"only the best {_MAX_RUNS} of {known} runs are shown")
    if without:
        notes.append(
            f"the reports of {', '.join(without)} have no classes of the last evaluation;"
            " train.evaluate writes them"
        )
    return "; ".join(notes)


def _rank(iou: float | None) -> float:
    return 2.0 if iou is None else iou


def _iou(value: float | None) -> str:
    return "–" if value is None else format_percent(value, 2)
