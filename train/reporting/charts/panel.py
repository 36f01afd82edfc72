"""Content of a chart, independent of how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """A line of (x, y) points. A ``y`` of NaN is a gap with a mark.

    Attributes:
      label: its name in the legend.
      points: the points, x ascending.
      color: index from 0 of color and dashes.
      dots: whether points are marked, and always within the axes.
      pale: whether it is thin and pale, such as values behind their moving average.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    dots: bool = False
    pale: bool = False


@dataclass(frozen=True)
class Band:
    """An area between two lines, such as mean ± standard deviation: points ``(x, low, high)``."""

    label: str
    points: Sequence[tuple[float, float, float]]
    color: int = 0


@dataclass(frozen=True)
class Scatter:
    """Points without a line.

    Attributes:
      label: their name in the legend.
      points: (x, y) in any order.
      color: index from 0 of color and shape.
      names: what hovering shows of each point, such as the name of a run; empty for none.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Bars:
    """Bars ``(left, right, height)``; ``numbers`` writes the height above each above 0."""

    label: str
    bars: Sequence[tuple[float, float, float]]
    color: int = 0
    numbers: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines, areas, points and bars that share their axes; at least one of them.

    Attributes:
      title: title.
      series: lines, none of them empty.
      x, y: labels of the axes, with the unit if the values have one.
      low, high: limits of the vertical axis; None follows the values.
      percent: whether to show the vertical values as percentages.
      log: whether the vertical axis is logarithmic, of 1 + y.
      cut_outliers: whether few values far off do not extend the vertical axis; they are marked.
      bars: bars behind the lines.
      bands: areas behind the lines.
      scatter: points in front of the lines.
      x_low, x_high: limits of the horizontal axis; None follows the values.
      x_percent: whether to show the horizontal values as percentages.
      x_log: whether the horizontal axis is logarithmic; all its values are positive then.
      note: a sentence below the legend.
      last_values: whether the legend has the last value of each line, if there are no bars.
    """

    title: str
    series: Sequence[Series] = ()
    x: str = "epoch"
    y: str = ""
    low: float | None = None
    high: float | None = None
    percent: bool = False
    log: bool = False
    cut_outliers: bool = False
    bars: Bars | None = None
    bands: Sequence[Band] = ()
    scatter: Sequence[Scatter] = ()
    x_low: float | None = 0.0
    x_high: float | None = None
    x_percent: bool = False
    x_log: bool = False
    note: str = ""
    last_values: bool = True
