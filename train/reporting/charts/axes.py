"""Axes: limits, ticks and numbers as text."""

import math


def ticks(low: float, high: float) -> list[float]:
    """Return at most 6 round numbers in a range: multiples of 1, 2 or 5 times 10ⁿ."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float, is_share: bool = False) -> str:
    """Return a number as text: ``1.25``, ``12,500``, ``97.5 %``."""
    if is_share:
        return f"{100 * value:.4g} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def limits(values: list[float], low: float | None, high: float | None) -> tuple[float, float]:
    """Return the limits of an axis around the values, never of length 0."""
    smallest, largest = min(values), max(values)
    room = 0.05 * (largest - smallest) or 0.05 * abs(largest) or 1.0
    if low is None:
        low = 0.0 if 0 <= smallest <= room else smallest - room
    if high is None:
        high = largest + room
    return min(low, smallest), max(high, largest)
