"""How two runs are compared on their images, by the kind of their outputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

from train.compare.pair import pixels_report, section, words
from train.compare.pair.differences import compute_differences
from train.compare.pair.pixels import compare_pixels
from train.compare.pair.predictions import pair_predictions
from train.compare.runs import RunSummary
from train.runtime.errors import RunError


class PairKind(NamedTuple):
    """A kind of comparison.

    Attributes:
      compare: ``(first, second) -> found``, whose ``kind`` is that of the runs.
      lines: ``(found) -> lines`` for the console.
      part: ``(found) -> HTML`` for the page.
    """

    compare: Callable[[RunSummary, RunSummary], Any]
    lines: Callable[[Any], list[str]]
    part: Callable[[Any], str]


# By the kind of the runs, see flax_resnet.weights.run_info.RunInfo.
PAIR_KINDS = {
    None: PairKind(
        lambda first, second: compute_differences(pair_predictions(first, second)),
        words.lines,
        section.part,
    ),
    "segmentation": PairKind(compare_pixels, pixels_report.lines, pixels_report.part),
}


def compare_pair(first: RunSummary, second: RunSummary) -> Any:
    """Return what differs between two runs.

    Raises:
      RunError: they cannot be compared by image.
    """
    if first.kind != second.kind:
        raise RunError(
            f"the outputs of {first.name} and {second.name} are of different kinds: "
            + " and ".join("images" if run.kind is None else "pixels" for run in (first, second))
        )
    return PAIR_KINDS[first.kind].compare(first, second)
