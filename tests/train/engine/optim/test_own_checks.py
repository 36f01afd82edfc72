"""Own schedules and optimizers are checked before training."""

import jax
import jax.numpy as jnp
import optax
import pytest

from train import register_schedule
from train.config.loading import default_config
from train.engine.optim.own_checks import check_optimizer
from train.engine.optim.schedules import make_schedule
from train.runtime.errors import UsageError


@pytest.fixture
def config():
    return default_config()


def raising(*_):
    raise ValueError("no dice")


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (0.1, "the schedule 'own' must return a function of the step .*, not 0.1"),
        (lambda step: None, "must return a function .* that returns one number, not None"),
        (lambda step: jnp.ones(3), r"one number, not float32 \(3,\)"),
        (lambda step: 0.1 if step < 2 else 0, "cannot be computed for a step that is an array"),
        (lambda step: -0.1, "the learning rate -0.1 for step 0; it must be finite and 0 or more"),
        (lambda step: jnp.log(19.0 - step) + 1, "the learning rate -inf for step 19"),
    ],
)
def test_a_wrong_schedule_is_an_error_at_the_start(config, schedule, message):
    register_schedule("own", lambda *_: schedule)
    config.schedule.name = "own"
    with pytest.raises(UsageError, match=message):
        make_schedule(config.schedule, 10, 20, 8)


PARAMS = {"head": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}}


@pytest.mark.parametrize(
    ("init", "update", "message"),
    [
        (lambda p: {"s": "text"}, None, "state of the optimizer 'own' must .* arrays, not 'text'"),
        (lambda p: {"n": 0}, None, "state of the optimizer 'own' must .* arrays, not 0"),
        (lambda p: (), raising, "'own' cannot be computed: ValueError: no dice"),
        (lambda p: (), lambda u, s, p: (jax.tree.leaves(u), s), "updates .* structure differs"),
        (lambda p: (), lambda u, s, p: (jax.tree.map(jnp.sum, u), s), r"float32 \(\) instead of"),
        (
            lambda p: {"n": jnp.zeros((), int)},
            lambda u, s, p: (u, {"n": s["n"] + 1.0}),
            r"returned state .*\['n'\] is float32 \(\) instead of int32 \(\)",
        ),
    ],
)
def test_a_wrong_optimizer_is_an_error_at_the_start(init, update, message):
    with pytest.raises(UsageError, match=message):
        check_optimizer("own", optax.GradientTransformation(init, update), PARAMS)


def test_right_optimizers_pass():
    for optimizer in (
        optax.contrib.prodigy(),
        optax.adamw(1e-3),
        optax.contrib.schedule_free_sgd(),
    ):
        check_optimizer("own", optimizer, PARAMS)
