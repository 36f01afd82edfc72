"""Charts of the probabilities of an evaluation."""

from collections.abc import Sequence

from train.reporting.charts.panel import Bars, Panel, Series
from train.reporting.classification_metrics import ReliabilityBin
from train.runtime.formatting import format_percent
from train.tasks.abstention import AbstentionPoint


def reliability_panels(bins: Sequence[ReliabilityBin], ece: float) -> list[Panel]:
    """Return the reliability diagram (Guo et al. 2017, figure 1) and the images per bin."""
    filled = [one for one in bins if one.examples]
    lines = [Series("perfect calibration", [(0.0, 0.0), (1.0, 1.0)], color=7)]
    if filled:
        means = [(one.confidence, one.accuracy) for one in filled]
        lines.append(Series("accuracy at the mean confidence", means, color=1, dots=True))
    accuracy = Bars("accuracy of the bin", [(b.low, b.high, b.accuracy) for b in bins])
    heights = [(b.low, b.high, b.examples) for b in bins]
    counts = Bars("images", heights, color=7, numbers=True)
    most = max(one.examples for one in bins)
    high = 3 * (1 + most) ** 1.3  # room for the numbers above the bars
    title = f"reliability diagram (ECE {format_percent(ece, 2)})"
    return [
        Panel(
            *(title, lines, "confidence", "accuracy", 0, 1),
            percent=True,
            bars=accuracy,
            x_percent=True,
        ),
        Panel(
            "images per confidence bin",
            [],
            "confidence",
            "images",
            low=0,
            high=high,
            log=True,
            bars=counts,
            x_percent=True,
        ),
    ]


def abstention_panel(points: Sequence[AbstentionPoint]) -> Panel:
    """Return the accuracy of the images answered, if the least confident ones are not."""
    line = [(point.coverage, point.accuracy) for point in points]
    series = [Series("accuracy of the most confident images", line)]
    x = "share of images answered (coverage)"
    return Panel(
        *("abstention", series, x, "accuracy"),
        high=1,
        percent=True,
        x_percent=True,
        last_values=False,  # that of all images is not of the most confident ones
    )
