"""Lengths and intervals of runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.config.loading import default_config
from train.data.sampler import EpochSampler
from train.engine.intervals import Intervals, make_intervals
from train.runtime.errors import UsageError


def intervals_for(num_images, **keys):
    config = default_config()
    config.update_from_flattened_dict(keys)
    return make_intervals(config, EpochSampler(num_images, config.batch_size, seed=0))


def test_intervals_in_epochs():
    intervals = intervals_for(
        105,
        **{"batch_size": 10, "num_epochs": 3.0, "log.every_steps": 7},
        **{"eval.every_epochs": 1.5, "checkpoint.every_epochs": 0.5},
    )
    assert (intervals.steps_per_epoch, intervals.num_steps) == (10, 30)
    steps = range(1, 31)
    assert [s for s in steps if intervals.evaluates(s)] == [15, 30]
    assert [s for s in steps if intervals.saves(s)] == [5, 10, 15, 20, 25, 30]
    # Windows of 7 steps or more: what remains before an evaluation is merged.
    assert [s for s in steps if intervals.completes_window(s)] == [7, 15, 22, 30]
    assert [s for s in steps if intervals.logs(s)] == [5, 7, 10, 15, 20, 22, 25, 30]
    assert intervals.epoch(5) == 0.5
    assert "leaves out 5 images (4.8 %), different ones every time" in intervals.describe()


def test_intervals_in_steps_and_only_at_the_end():
    keys = {"batch_size": 10, "num_steps": 25, "eval.every_epochs": 0.0}
    intervals = intervals_for(100, **keys)
    assert intervals.num_steps == 25
    assert [s for s in range(1, 26) if intervals.evaluates(s)] == [25]
    assert "leaves out" not in intervals.describe()
    assert intervals_for(100, batch_size=10, num_epochs=0.001).num_steps == 1


def test_calls_are_as_long_as_permitted_and_end_where_something_is_due():
    intervals = intervals_for(
        105,
        **{"batch_size": 10, "num_epochs": 3.0, "log.every_steps": 7},
        **{"eval.every_epochs": 1.5, "checkpoint.every_epochs": 0.5},
    )
    calls = [*intervals.calls(3, 4)]  # due: 5, 7, 10, 15, 20, 22, 25, 30
    ends = [5, 7, 10, 14, 15, 19, 20, 22, 25, 29, 30]
    assert calls == [range(*pair) for pair in zip([3, *ends], ends, strict=False)]
    assert [*intervals.calls(30, 4)] == []


@given(st.integers(1, 300), st.integers(0, 80), st.integers(1, 60))
@settings(max_examples=300, deadline=None)
def test_every_window_has_the_full_number_of_steps(num_steps, eval_every, log_every):
    """What remains before an evaluation or the end is merged with the window before it."""
    sampler = EpochSampler(100, 10, seed=0)
    intervals = Intervals(sampler, num_steps, eval_every, 7, 0, log_every)
    ends = [s for s in range(num_steps + 1) if intervals.completes_window(s)]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == num_steps
    assert min(lengths) >= log_every or ends == [num_steps]  # a shorter run is one window
    assert max(lengths) < 3 * log_every or num_steps < log_every
    if eval_every >= log_every:  # rows of evaluations have training metrics, too
        assert set(range(eval_every, num_steps - log_every, eval_every)) <= set(ends)


@pytest.mark.parametrize(
    ("steps_per_epoch", "log_every"), [(20, 10), (257, 25), (1009, 100), (5000, 100)]
)
def test_automatic_intervals_of_rows(steps_per_epoch, log_every):
    intervals = intervals_for(10 * steps_per_epoch, batch_size=10)
    assert intervals.log_every == log_every
    one = intervals_for(10 * steps_per_epoch, batch_size=10, num_epochs=1.0)
    assert one.describe().endswith(" per epoch, 1 epoch")
    two = intervals_for(10 * steps_per_epoch, batch_size=10, num_epochs=2.0)
    assert two.describe().endswith(" per epoch, 2 epochs")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": 101}, "batch_size=101 exceeds the 100 training images"),
        ({"batch_size": 10, "num_epochs": 0.0}, "nothing to train"),
    ],
)
def test_impossible_intervals_are_usage_errors(keys, message):
    with pytest.raises(UsageError, match=message):
        intervals_for(100, **keys)
