"""Batch norm's own gradient against that of JAX, with linen's batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnet import ops
from flax_resnet.norm import BatchNorm

PLACES = dict(momentum=0.9, epsilon=1e-5)


def draw(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def run(module, x, params, axis_name=None):
    """Map and new statistics, and the gradients of a sum of all of them with random weights."""
    layer = module(**PLACES, axis_name=axis_name, dtype=x.dtype)
    statistics = {"mean": jnp.ones(3), "var": jnp.full(3, 2.0)}

    def total(x, params):
        variables = {"params": params, "batch_stats": statistics}
        y, new = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        weighed = (y * draw(*y.shape, seed=7)).sum()
        for seed, leaf in enumerate(jax.tree.leaves(new)):
            weighed += (leaf * draw(*leaf.shape, seed=seed)).sum()
        return weighed, (y, new)

    return jax.value_and_grad(total, (0, 1), has_aux=True)(x, params)


@pytest.fixture
def x():
    return draw(8, 5, 4, 3, seed=1) * jnp.array([0.5, 2, 3]) + jnp.array([3.0, -1, 0])


@pytest.fixture
def params():
    return {"scale": jnp.array([0.5, -1, 2]), "bias": jnp.array([1.0, 0, -2])}


def assert_close(ours, theirs, within):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = (np.asarray(leaf, np.float32) for leaf in (a, b))
        assert np.abs(a - b).max() <= within * np.abs(b).max()


@pytest.mark.parametrize("devices", [1, 2])
def test_equals_linen(x, params, devices):
    axis = "batch" if devices > 1 else None

    def mapped(module):
        def one(x):
            return run(module, x, params, axis)

        if axis is None:
            return jax.jit(one)(x)
        return jax.pmap(one, axis_name=axis)(x.reshape(devices, -1, *x.shape[1:]))

    assert_close(mapped(BatchNorm), mapped(nn.BatchNorm), 1e-5)


def test_is_taken_in_training_on_a_cpu_and_where_asked_for(x, params):
    layer, statistics = BatchNorm(**PLACES), {"mean": jnp.ones(3), "var": jnp.ones(3)}
    variables = {"params": params, "batch_stats": statistics}

    def taken(x, evaluates=False):
        def apply(x):
            return layer.apply(variables, x, evaluates, mutable=["batch_stats"])

        return "normalise" in str(jax.make_jaxpr(apply)(x))

    assert taken(x) and not taken(x, evaluates=True) and not taken(x.astype(jnp.bfloat16))
    with ops.own_gradients():
        assert taken(x.astype(jnp.bfloat16))
    with ops.plain():
        assert not taken(x)


def test_bfloat16_keeps_its_type_and_computes_in_float32(x, params):
    low = x.astype(jnp.bfloat16)
    with ops.own_gradients():
        ours = run(BatchNorm, low, params)
    assert ours[0][1][0].dtype == jnp.bfloat16
    assert ours[0][1][1]["batch_stats"]["mean"].dtype == jnp.float32
    # Of the map and of the images' gradient half a unit in the last place of bfloat16 is left.
    assert_close(ours[1], run(nn.BatchNorm, low.astype(jnp.float32), params)[1], 2**-7)


def test_a_constant_channel_stays_finite(params):
    _, gradients = run(BatchNorm, jnp.full((4, 2, 2, 3), 1e4), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
