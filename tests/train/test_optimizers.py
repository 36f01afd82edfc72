"""Schedules and optimisers against closed forms."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from train.config import default_config
from train.optimizers import make_optimizer, make_schedule


def schedule(steps_per_epoch=10, num_steps=100, **keys):
    config = default_config().schedule
    config.update(keys)
    return make_schedule(config, steps_per_epoch, num_steps)


def test_cosine_rises_over_the_warm_up_and_falls_to_zero():
    rate = schedule(name="cosine", learning_rate=0.4, warmup_epochs=2.0)
    np.testing.assert_allclose(rate(0), 0.4 / 20, rtol=1e-6)
    np.testing.assert_allclose(rate(9), 0.4 * 10 / 20, rtol=1e-6)
    np.testing.assert_allclose(rate(19), 0.4, rtol=1e-6)
    for step in (20, 47, 60, 99):
        expected = 0.4 * 0.5 * (1 + math.cos(math.pi * (step - 20) / 80))
        np.testing.assert_allclose(rate(step), expected, rtol=1e-4, err_msg=str(step))
    assert rate(100) == 0


def test_steps_fall_at_epochs_of_the_run_whatever_the_warm_up():
    for warmup in (0.0, 2.0):
        rate = schedule(
            name="step", learning_rate=1.0, step_epochs=(3, 5.5), step_factor=0.1,
            warmup_epochs=warmup,
        )  # fmt: skip
        values = [float(rate(step)) for step in (29, 30, 54, 55, 99)]
        np.testing.assert_allclose(values, [1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_constant_stays():
    rate = schedule(name="constant", learning_rate=0.3)
    assert {round(float(rate(step)), 6) for step in (0, 50, 99, 1000)} == {0.3}


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_textbooks_and_spares_norms_and_biases(nesterov):
    config = default_config()
    config.optimizer.momentum = 0.8
    config.optimizer.nesterov = nesterov
    config.optimizer.weight_decay = 0.1
    optimizer = make_optimizer(config.optimizer, lambda step: 0.5)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,), "scale": (4,)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    expected = dict(params)
    velocity = {name: np.zeros(shape) for name, shape in shapes.items()}
    state = optimizer.init(params)
    for _ in range(3):
        gradients = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        updates, state = optimizer.update(gradients, state, params)
        params = {name: params[name] + updates[name] for name in params}
        for name, gradient in gradients.items():
            decay = 0.1 if name == "kernel" else 0
            gradient = gradient + decay * expected[name]
            velocity[name] = 0.8 * velocity[name] + gradient
            step = gradient + 0.8 * velocity[name] if nesterov else velocity[name]
            expected[name] = expected[name] - 0.5 * step
    for name in params:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-5, err_msg=name)


def test_adam_is_kingmas_with_an_l2_penalty():
    config = default_config()
    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.1
    optimizer = make_optimizer(config.optimizer, lambda step: 0.01)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    gradients = {"kernel": jnp.full((2, 2), 0.5), "bias": jnp.full(2, 0.5)}
    state = optimizer.init(params)
    m = v = 0.0
    expected = 1.0
    for step in range(1, 4):
        updates, state = optimizer.update(gradients, state, params)
        params = {name: params[name] + updates[name] for name in params}
        g = 0.5 + 0.1 * expected
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected -= 0.01 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5)
    np.testing.assert_allclose(params["bias"], 1 - 0.03, rtol=1e-5)
