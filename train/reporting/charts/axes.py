"""Axes: limits, ticks, numbers as text, and the place of values on a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from train.runtime.formatting import format_number

LINEAR, LOG, LOG_1P = "linear", "log", "log(1 + value)"
_SCALES = {LINEAR: float, LOG: math.log10, LOG_1P: lambda value: math.log10(1 + value)}


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
      low, high: its limits; values outside are placed on them.
      start, end: their places in pixels.
      percent: whether its values are shares, shown as percentages.
      scale: ``LINEAR``, ``LOG``, or ``LOG_1P``.
    """

    low: float
    high: float
    start: float
    end: float
    percent: bool = False
    scale: str = LINEAR

    def __call__(self, value: float) -> float:
        """Return the place of a finite value in pixels."""
        scale = _SCALES[self.scale]
        low, high = scale(self.low), scale(self.high)
        share = (scale(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the values to label."""
        if self.scale == LINEAR:
            return ticks(self.low, self.high)
        if self.scale == LOG_1P:
            exponents = range(math.floor(math.log10(max(1, self.high))) + 1)
            return [0.0, *(10.0**n for n in exponents)]
        return log_ticks(self.low, self.high)

    def text(self, value: float) -> str:
        """Return a value as text."""
        return number(value, self.percent)


def ticks(low: float, high: float) -> list[float]:
    """Return at most 7 round numbers in a range: multiples of 1, 2 or 5 times 10ⁿ."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers in a range of positive numbers, for a logarithmic axis."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**n for n in exponents for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) >= 3:
            return found[:: -(-len(found) // 7)]
    return ticks(low, high)


def number(value: float, is_share: bool = False) -> str:
    """Return a number as text: ``1.25``, ``12,500``, ``1.2e-6``, ``97.5 %``."""
    if is_share:
        return f"{100 * value:.4g} %"
    return format_number(value)


def limits(
    values: Sequence[float], low: float | None, high: float | None, is_share: bool = False
) -> tuple[float, float]:
    """Return the limits of an axis around finite values, never of length 0.

    They show how the values change: 0, and 1 for shares, are within them only if that makes the
    axis less than twice as long.

    Args:
      values: the values; none for an axis without any.
      low: the lower limit; None follows the values. Values outside extend it.
      high: likewise the upper limit.
      is_share: whether the values are shares of 1.
    """
    smallest, largest = min(values, default=0.0), max(values, default=1.0)
    extent = largest - smallest
    room = 0.05 * extent or 0.05 * abs(largest) or 1.0
    if low is None:
        low = 0.0 if 0 <= smallest <= max(room, extent / 2) else smallest - room
    if high is None:
        high = largest + room
        if is_share and largest <= 1:
            high = 1.0 if 1 - largest <= max(room, extent / 4) else high
    return min(low, smallest), max(high, largest)


def log_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of a logarithmic axis around positive values, never of length 0."""
    smallest, largest = min(values, default=1.0), max(values, default=10.0)
    room = (largest / smallest) ** 0.05 if largest > smallest else 2.0
    return smallest / room, largest * room
