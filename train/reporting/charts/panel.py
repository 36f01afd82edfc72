"""Content of a chart, independent of how it is drawn."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """One line of (x, y) points. ``dots`` marks each point; ``color`` is an index from 0."""

    label: str
    points: list[tuple[float, float]]
    color: int = 0
    dots: bool = False


@dataclass(frozen=True)
class Bars:
    """Bars ``(left, right, height)``; ``numbers`` writes the height above each above 0."""

    label: str
    bars: list[tuple[float, float, float]]
    color: int = 0
    numbers: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines and bars that share their axes.

    Attributes:
      title: title, with the unit if the values have one.
      series: lines, none of them empty.
      x: label of the horizontal axis.
      y: label of the vertical axis; empty if the title is label enough.
      low, high: limits of the vertical axis; None follows the values.
      percent: whether to show the values as percentages.
      log: whether the vertical axis is logarithmic, of 1 + y.
      bars: bars behind the lines.
      last_values: whether the legend has the last value of each line, if there are no bars.
    """

    title: str
    series: list[Series]
    x: str = "epoch"
    y: str = ""
    low: float | None = None
    high: float | None = None
    percent: bool = False
    log: bool = False
    bars: Bars | None = None
    last_values: bool = True
