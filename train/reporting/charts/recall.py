"""The recall of the classes of an evaluation, in ascending order."""

from collections.abc import Sequence

from flax_resnet.text import truncate
from train.reporting.charts.panel import Band, Panel, Scatter, Series

_MAX_MARKED = 200  # classes with a mark each; more are a line
_MAX_NAME = 40  # characters of a class name


def recall_panel(recalls: Sequence[tuple[str, float, Sequence[float]]]) -> Panel:
    """Return the recall of each class with its interval, and the mean.

    Args:
      recalls: name, recall and 95 % interval of each class, at least one.
    """
    ordered = sorted(recalls, key=lambda one: one[1])
    points = [(float(place), recall) for place, (_, recall, _) in enumerate(ordered, start=1)]
    band = [(float(n), low, high) for n, (_, _, (low, high)) in enumerate(ordered, start=1)]
    mean = sum(recall for _, recall in points) / len(points)
    lines = [Series("mean", [(1.0, mean), (float(len(points)), mean)], color=7)]
    marks: list[Scatter] = []
    if len(points) <= _MAX_MARKED:
        names = [truncate(name, _MAX_NAME) for name, *_ in ordered]
        marks = [Scatter("recall", points, 0, names)]
    else:
        lines.append(Series("recall", points))
    return Panel(
        *("recall of each class", lines, "classes, lowest recall first", "recall"),
        low=0,
        high=1,
        percent=True,
        bands=[Band("95 % interval", band)],
        scatter=marks,
        x_low=None,
        last_values=False,
    )
