"""Statistics of two networks on the same images: McNemar's test and paired intervals."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr

from train.reporting.classification_metrics import Z95


class Pairs(NamedTuple):
    """Numbers of images by which of two networks is right on them.

    Attributes:
      both: both are right.
      only_first: only the first is.
      only_second: only the second is.
      neither: both are wrong.
    """

    both: int
    only_first: int
    only_second: int
    neither: int


def count_pairs(first: np.ndarray, second: np.ndarray) -> Pairs:
    """Count images by whether two networks are right on them, bool ``(N,)`` each."""
    parts = first & second, first & ~second, ~first & second, ~first & ~second
    return Pairs(*(int(part.sum()) for part in parts))


def mcnemar(pairs: Pairs) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947).

    If both networks are equally accurate, an image that only one of them has right is as likely
    one of the first as of the second: a fair coin. The binomial sum is exact for any number of
    such images; without any it is 1.
    """
    changed = pairs.only_first + pairs.only_second
    if not changed:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(pairs.only_first, pairs.only_second), changed, 0.5)))


def recall_difference(gained: int, lost: int, images: int) -> tuple[float, float, float]:
    """Return the difference of two shares of the same images, with its 95 % interval.

    The interval is the adjusted one of Wald for paired shares (Bonett and Price 2012), which holds
    for few images, too.

    Args:
      gained: images that only the second network has right.
      lost: images that only the first one has right.
      images: number of all images, above 0.

    Returns:
      Difference, and the low and high end of the interval, from -1 to 1.
    """
    more, less = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    center = more - less
    half = Z95 * math.sqrt((more + less - center**2) / (images + 2))
    difference = (gained - lost) / images
    low, high = max(-1.0, center - half), min(1.0, center + half)
    return difference, min(low, difference), max(high, difference)
