"""Own parts that fail are described in one line."""

import sys

import pytest

from train import (
    register_augmentation,
    register_loss,
    register_optimizer,
    register_schedule,
    register_source,
    register_task,
)
from train.config.loading import default_config
from train.data.augment.configured import make_augment
from train.data.datasets import open_source
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.schedules import make_schedule
from train.runtime.errors import UsageError
from train.tasks.configured import make_task


@pytest.fixture
def config():
    return default_config()


@pytest.mark.parametrize(
    ("register", "key", "make"),
    [
        (register_optimizer, "optimizer.name", lambda c: make_optimizer(c.optimizer, lambda s: 1)),
        (register_schedule, "schedule.name", lambda c: make_schedule(c.schedule, 10, 20, 8)),
        (register_loss, "loss", lambda c: make_task(c, 4)),
        (register_task, "task", lambda c: make_task(c, 4)),
        (register_augmentation, "augment.policy", make_augment),
        (register_source, "dataset.name", lambda c: open_source(c.dataset, "train")),
    ],
)
def test_a_part_that_fails_or_returns_nonsense_is_an_error_of_one_line(config, register, key, make):
    def fail(*_):
        raise ZeroDivisionError("by\nzero")

    def exit(*_):
        sys.exit(3)

    register("failing", fail)
    register("exiting", exit)
    register("nonsense", lambda *_: 7)
    register("forgetful", lambda *_: None)
    for name, message in (
        ("failing", r"fails: ZeroDivisionError: by zero \(test_own_code.py, line \d+\)"),
        ("exiting", "fails: SystemExit: 3"),
        ("nonsense", "7|int"),
        ("forgetful", "'forgetful' returned None; its function may lack a return"),
    ):
        config.update_from_flattened_dict({key: name})
        with pytest.raises(UsageError, match=message):
            make(config)


def test_a_wrong_key_in_an_own_part_is_one_clean_line(config):
    register_optimizer("own", lambda optimizer, schedule: optimizer.my_momentum)
    config.optimizer.name = "own"
    with pytest.raises(UsageError, match="AttributeError: 'my_momentum' Did you mean") as caught:
        make_optimizer(config.optimizer, lambda step: 1)
    assert "\\n" not in str(caught.value)
