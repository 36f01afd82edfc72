"""Initial states that are not compiled, against those that JAX computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.engine.host_values import call_on_host

PARAMS = {
    "a": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32),
    "b": {"c": np.ones(4, np.float16), "d": np.float32(2)},
}
FILLED = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adamw": optax.adamw(lambda step: 0.1 / (step + 1)),
    "bfloat16": optax.adam(0.1, mu_dtype=jnp.bfloat16),
    "accumulator": optax.adagrad(0.1, initial_accumulator_value=0.25),
    "hyperparameters": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
}
COMPUTED = {
    "copy": optax.lookahead(optax.sgd(0.1), sync_period=2, slow_step_size=0.5).init,
    "norm": lambda params: jax.tree.map(lambda x: jnp.sum(x * x), params),
    "rows": lambda params: jnp.broadcast_to(jnp.arange(2.0), (3, 2)),
}


def assert_same(result, expected):
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("name", FILLED)
def test_constants_are_filled_on_the_host(name):
    result = call_on_host(FILLED[name].init, PARAMS)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result))
    assert_same(result, FILLED[name].init(PARAMS))


@pytest.mark.parametrize("name", COMPUTED)
def test_other_values_are_computed(name):
    argument = optax.LookaheadParams(PARAMS, PARAMS) if name == "copy" else PARAMS
    assert_same(call_on_host(COMPUTED[name], argument), COMPUTED[name](argument))
