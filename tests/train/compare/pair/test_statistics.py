"""McNemar's test equals SciPy's binomial test; intervals of paired shares cover the truth."""

import itertools

import numpy as np
import pytest
import scipy.stats

from train.compare.pair.statistics import Pairs, count_pairs, mcnemar, recall_difference


def test_mcnemar_equals_the_binomial_test():
    small = itertools.product(range(25), range(25))
    for first, second in [*small, (400, 520), (9_000, 8_600), (0, 3000)]:
        pairs = Pairs(7, first, second, 3)
        expected = 1.0
        if first + second:
            expected = scipy.stats.binomtest(first, first + second, 0.5).pvalue
        assert mcnemar(pairs) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_pairs_are_counted_as_in_a_contingency_table():
    first, second = np.random.default_rng(0).random((2, 500)) < [[0.8], [0.6]]
    table = scipy.stats.contingency.crosstab(~first, ~second).count
    assert count_pairs(first, second) == tuple(table.ravel())


@pytest.mark.parametrize("images", [5, 20, 60])
def test_intervals_of_differences_cover_the_truth(images):
    """The exact coverage, by all outcomes of the trinomial distribution: 95 % on average."""
    outcomes = [(g, n) for g in range(images + 1) for n in range(images + 1 - g)]
    intervals = np.array([recall_difference(*outcome, images) for outcome in outcomes])
    assert ((intervals[:, 1] <= intervals[:, 0]) & (intervals[:, 0] <= intervals[:, 2])).all()
    assert intervals.min() >= -1 and intervals.max() <= 1
    covered = []
    for gain, loss in itertools.product((0.01, 0.05, 0.1, 0.2, 0.3), repeat=2):
        distribution = scipy.stats.multinomial(images, (gain, loss, 1 - gain - loss))
        rest = [images - sum(outcome) for outcome in outcomes]
        chances = distribution.pmf([(*o, r) for o, r in zip(outcomes, rest, strict=True)])
        inside = (intervals[:, 1] <= gain - loss) & (gain - loss <= intervals[:, 2])
        covered.append(chances[inside].sum())
    assert min(covered) > 0.92 and np.mean(covered) > 0.945


def test_large_differences_match_the_normal_approximation():
    gained, lost, images = 300, 200, 10_000
    difference, low, high = recall_difference(gained, lost, images)
    share = np.zeros(images)
    share[:gained], share[gained : gained + lost] = 1, -1
    expected = scipy.stats.norm.interval(0.95, share.mean(), share.std() / np.sqrt(images))
    assert difference == pytest.approx(0.01)
    assert (low, high) == pytest.approx(expected, abs=1e-4)


def test_intervals_are_those_of_two_more_images():
    """One more that only the first has right, and one that only the second has (Bonett, Price)."""
    for gained, lost, images in ((60, 5, 80), (0, 0, 1), (3, 40, 50)):
        changes = np.zeros(images + 2)
        changes[: gained + 1], changes[gained + 1 : gained + lost + 2] = 1, -1
        expected = scipy.stats.norm.interval(
            0.95, changes.mean(), changes.std() / len(changes) ** 0.5
        )
        _, low, high = recall_difference(gained, lost, images)
        assert (low, high) == pytest.approx(np.clip(expected, -1, 1), abs=1e-9)
