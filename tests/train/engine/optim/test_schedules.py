"""Schedules against closed forms; test_optimizers_peers.py compares with PyTorch."""

import math

import jax
import numpy as np
import pytest

from train.config.loading import default_config
from train.engine.optim import schedules
from train.runtime.errors import UsageError


def schedule_keys(**keys):
    schedule = default_config().schedule
    schedule.update(keys)
    return schedule


def make(steps_per_epoch=10, num_steps=100, batch_size=64, **keys):
    return schedules.make_schedule(schedule_keys(**keys), steps_per_epoch, num_steps, batch_size)


def rates(count=100, **keys):
    """Return the learning rates of all steps of a run."""
    return jax.vmap(make(num_steps=count, **keys))(np.arange(count))


# Closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{"warmup_epochs": 2.0}, {"warmup_steps": 20}])
def test_cosine_with_warm_up(keys):
    rate = make(name="cosine", learning_rate=0.4, **keys)
    np.testing.assert_allclose(rate(0), 0.4 / 20, rtol=1e-6)
    np.testing.assert_allclose(rate(9), 0.4 * 10 / 20, rtol=1e-6)
    np.testing.assert_allclose(rate(19), 0.4, rtol=1e-6)
    for step in (20, 47, 60, 99):
        expected = 0.4 * 0.5 * (1 + math.cos(math.pi * (step - 20) / 80))
        np.testing.assert_allclose(rate(step), expected, rtol=1e-4, err_msg=str(step))
    assert rate(100) == 0


@pytest.mark.parametrize("warmup", [0, 20])
def test_polynomial_with_power_and_end(warmup):
    rate = make(
        name="polynomial", learning_rate=2.0, power=2.0, end_lr_fraction=0.1, warmup_steps=warmup
    )
    for step in (20, 47, 60, 99, 100, 105):
        left = 1 - min(1, (step - warmup) / (100 - warmup))
        np.testing.assert_allclose(rate(step), 0.2 + 1.8 * left**2, rtol=1e-5, err_msg=str(step))
    line = make(name="polynomial", learning_rate=1.0)
    np.testing.assert_allclose([line(0), line(25), line(99)], [1, 0.75, 0.01], rtol=1e-4)


def test_milestones_count_from_the_start_of_the_run():
    for keys in ({}, {"warmup_epochs": 2.0}):
        for boundaries in ({"milestone_epochs": (3, 5.5)}, {"milestone_steps": (30, 55)}):
            rate = make(name="step", learning_rate=1.0, gamma=0.1, **keys, **boundaries)
            values = [float(rate(step)) for step in (29, 30, 54, 55, 99)]
            np.testing.assert_allclose(values, [1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_default_milestones_scale_with_the_run():
    for epochs in (90, 9):
        rate = make(10, 10 * epochs, name="step", learning_rate=1.0)
        for share, before in ((3 / 9, 1), (6 / 9, 0.1), (8 / 9, 0.01)):
            step = round(10 * epochs * share)
            values = [float(rate(step - 1)), float(rate(step))]
            np.testing.assert_allclose(values, [before, 0.1 * before], rtol=1e-5)


def test_repeated_milestone_counts_twice():
    rate = make(name="step", learning_rate=1.0, milestone_epochs=(3.0, 3.01))
    np.testing.assert_allclose([rate(29), rate(30)], [1, 0.01], rtol=1e-5)


def test_constant():
    rate = make(name="constant", learning_rate=0.3)
    assert {round(float(rate(step)), 6) for step in (0, 50, 99, 1000)} == {0.3}


def test_one_cycle_reaches_peak_and_end():
    values = rates(name="one_cycle", learning_rate=0.5)
    np.testing.assert_allclose(values[0], 0.5 / 25, rtol=1e-5)
    assert values.argmax() == 29
    np.testing.assert_allclose(values[29], 0.5, rtol=1e-6)
    np.testing.assert_allclose(values[-1], 0.5 / 25e4, atol=1e-7)
    for count in (1, 2, 3, 4):  # a run too short for the cycle still learns
        values = rates(count, name="one_cycle", learning_rate=0.5)
        assert np.isfinite(values).all() and 0.1 < values.max() <= 0.5


def test_linear_scaling_only_with_base_batch_size():
    keys = {"name": "constant", "learning_rate": 0.1}
    np.testing.assert_allclose(make(batch_size=1024, **keys)(0), 0.1, rtol=1e-6)
    np.testing.assert_allclose(
        make(batch_size=1024, base_batch_size=256, **keys)(0), 0.4, rtol=1e-6
    )
    np.testing.assert_allclose(
        make(batch_size=64, base_batch_size=256, **keys)(0), 0.025, rtol=1e-6
    )


# Short runs --------------------------------------------------------------------------------


def test_warm_up_is_shortened_in_a_short_run():
    for name in ("constant", "step", "cosine", "polynomial"):
        for count in (1, 2, 5, 40):
            values = rates(count, name=name, learning_rate=0.3, warmup_epochs=5.0)
            np.testing.assert_allclose(values.max(), 0.3, rtol=1e-6, err_msg=f"{name} {count}")
    values = rates(40, name="constant", learning_rate=1.0, warmup_epochs=5.0)
    np.testing.assert_allclose(values[:11], np.minimum(1, np.arange(1, 12) / 10), rtol=1e-5)
    # The share is the user's to set.
    values = rates(
        40, name="constant", learning_rate=1.0, warmup_epochs=5.0, max_warmup_fraction=0.5
    )
    np.testing.assert_allclose(values[:21], np.minimum(1, np.arange(1, 22) / 20), rtol=1e-5)


@pytest.mark.parametrize("warmup", [1, 2, 3])
def test_the_shortest_warm_ups(warmup):
    values = rates(40, name="constant", learning_rate=1.0, warmup_steps=warmup)
    np.testing.assert_allclose(values[:5], np.minimum(1, np.arange(1, 6) / warmup), rtol=1e-6)


@pytest.mark.parametrize(
    ("keys", "same"),
    [
        ({"name": "constant"}, True),
        ({"name": "cosine"}, False),
        ({"name": "polynomial"}, False),
        ({"name": "one_cycle"}, False),
        ({"name": "step", "milestone_steps": (30,)}, True),
        ({"name": "step", "milestones": (0.5,)}, False),  # at step 20, and after 40
        ({"name": "step", "milestones": (0.9,)}, False),  # at step 36, and after 40
        ({"name": "constant", "warmup_steps": 8}, True),
        ({"name": "constant", "warmup_steps": 15}, False),  # a quarter of 40 steps is 10
        ({"name": "step", "milestone_steps": (30,), "warmup_steps": 15}, False),
    ],
)
def test_same_rates_compares_the_first_steps_of_two_lengths(keys, same):
    """What it decides without the rates, against the rates."""
    values = [np.asarray(rates(count, learning_rate=0.3, **keys))[:40] for count in (40, 80)]
    assert np.array_equal(*values) == same
    assert schedules.same_rates(schedule_keys(**keys), 10, (40, 80), 40) == same
    assert schedules.same_rates(schedule_keys(**keys), 10, (40, 40), 40) == (
        keys["name"] in ("constant", "step")
    )


def test_milestone_within_the_warm_up_takes_effect():
    keys = {"milestone_steps": (10, 50), "warmup_steps": 20, "gamma": 0.1}
    values = rates(100, name="step", learning_rate=1.0, **keys)
    steps = np.arange(100)
    expected = np.minimum(1, (steps + 1) / 20) * 0.1 ** ((steps >= 10) + 1.0 * (steps >= 50))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_milestones_as_fractions_of_the_run():
    values = rates(40, name="step", learning_rate=1.0, milestones=(0.5, 0.75))
    np.testing.assert_allclose(np.asarray(values)[[19, 20, 29, 30]], [1, 0.1, 0.1, 0.01], rtol=1e-5)


def test_warnings_of_a_schedule_that_does_not_fit_the_run():
    def warnings(num_steps, **keys):
        return schedules.warnings(schedule_keys(**keys), 10, num_steps)

    assert warnings(200, warmup_epochs=5.0) == []
    [warning] = warnings(40, warmup_epochs=5.0)
    assert "shortened from 50 to 10 steps, at most 25 % of a run of 40" in warning
    [warning] = warnings(1, warmup_epochs=5.0)
    assert "shortened from 50 to 0 steps, at most 25 % of a run of 1" in warning
    assert warnings(5, name="step") == []
    [warning] = warnings(30, name="step", milestone_epochs=(2.0, 9.0))
    assert "at step 90, but the run ends after 30" in warning
    [warning] = warnings(30, name="step", milestone_steps=(32000, 48000))
    assert "at step 32,000" in warning
    [warning] = warnings(100, name="step", milestone_steps=(10, 50), warmup_steps=20)
    assert "at step 10, but the warm-up ends after 20" in warning
    assert warnings(30, name="cosine", milestone_epochs=(2.0, 9.0)) == []


def test_description_of_the_schedule():
    def describe(**keys):
        return schedules.describe(schedule_keys(learning_rate=0.1, **keys), 10, 100, 1024)

    assert describe() == "0.1, cosine"
    assert describe(base_batch_size=256, warmup_steps=20) == (
        "0.1 for 256 images, so 0.4 for 1,024 after a warm-up of 20 steps, cosine"
    )
    assert describe(name="step") == "0.1, times 0.1 at steps 33, 67, 89"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"warmup_epochs": 1.0, "warmup_steps": 5},
            "warmup_epochs=1 and config.schedule.warmup_steps=5 are both set",
        ),
        (
            {"milestone_epochs": (1.0,), "milestone_steps": (5,)},
            r"milestone_epochs=\(1.0,\) and config.schedule.milestone_steps=\(5,\) are both set",
        ),
        ({"name": "one_cycle", "warmup_epochs": 1.0}, "'one_cycle' includes its own warm-up"),
    ],
)
def test_conflicting_keys_are_usage_errors(keys, message):
    with pytest.raises(UsageError, match=message) as error:
        make(**keys)
    assert "\n" not in str(error.value)
