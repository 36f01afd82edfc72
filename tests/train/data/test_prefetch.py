"""Prefetching in a thread."""

import pytest

from train.data.prefetch import Prefetcher


def test_results_keep_their_order_and_errors_their_position():
    def items():
        yield from range(3)
        raise ValueError("at the fourth")

    got = []
    with pytest.raises(ValueError, match="at the fourth"):
        for item in Prefetcher(items(), lambda item: 10 * item):
            got.append(item)
    assert got == [0, 10, 20]
    assert [*Prefetcher(range(5), str)] == list("01234")


def test_prefetches_at_most_depth_results_and_stops_when_closed():
    made = []
    batches = Prefetcher(iter(range(1000)), made.append, depth=2)
    next(batches)
    batches.close()  # waits for the thread
    count = len(made)
    assert count <= 4


def test_the_end_is_reported_again_to_further_calls():
    batches = Prefetcher([1], str)
    assert next(batches) == "1"
    assert [next(batches, None) for _ in range(3)] == [None] * 3
