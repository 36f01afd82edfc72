"""Batch norm and its custom gradient against linen's batch norm with JAX's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from flax_resnet import ops
from flax_resnet.ops.norm import BatchNorm, batch_norm
from tests.flags import AS_SHIPPED

FIELDS = dict(momentum=0.9, epsilon=1e-5)


def draw(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def run(module, x, params, axis_name=None):
    """Return output and new statistics, and the gradients of their sum with random weights."""
    layer = module(**FIELDS, axis_name=axis_name, dtype=x.dtype)
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


def assert_matches_linen(computed):
    """Assert that both implementations give the same ``computed(module)`` as linen's batch norm."""
    theirs = computed(nn.BatchNorm)
    assert_close(computed(BatchNorm), theirs, 1e-5)
    with ops.use_backend("gpu"):
        assert_close(computed(BatchNorm), theirs, 1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_matches_linen(x, params, devices):
    axis = "batch" if devices > 1 else None

    def mapped(module):
        def one(x):
            return run(module, x, params, axis)

        if axis is None:
            return jax.jit(one, compiler_options=AS_SHIPPED)(x)
        return jax.pmap(one, axis_name=axis)(x.reshape(devices, -1, *x.shape[1:]))

    assert_matches_linen(mapped)


@pytest.mark.parametrize("check_vma", [False, True])
def test_inside_shard_map(x, params, check_vma):
    """Statistics and gradients are those of both devices."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))

    def mapped(module):
        def one(x):
            return jax.tree.map(lambda leaf: leaf[None], run(module, x, params, "batch"))

        specs = dict(in_specs=PartitionSpec("batch"), out_specs=PartitionSpec("batch"))
        return jax.jit(jax.shard_map(one, mesh=mesh, check_vma=check_vma, **specs))(x)

    assert_matches_linen(mapped)


def test_inside_checkpoint(x, params):
    """The gradient recomputes the forward pass."""

    def again(module):
        layer, statistics = module(**FIELDS), {"mean": jnp.ones(3), "var": jnp.ones(3)}

        @jax.checkpoint
        def normalized(x, params):
            variables = {"params": params, "batch_stats": statistics}
            return layer.apply(variables, x, False, mutable=["batch_stats"])

        def total(x, params):
            y, new = normalized(x, params)
            return (jnp.sin(y) * draw(*y.shape, seed=7)).sum(), new

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, params)

    assert_matches_linen(again)


def test_under_vmap(x, params):
    """Each mapped batch has its own statistics, or with an axis name those of all."""
    batches = x.reshape(2, -1, *x.shape[1:])
    for axis in (None, "batch"):
        assert_matches_linen(
            lambda module, axis=axis: jax.jit(
                jax.vmap(lambda x: run(module, x, params, axis), axis_name="batch")
            )(batches)
        )


def test_custom_gradient_is_used_in_training_on_gpus(x, params):
    layer, statistics = BatchNorm(**FIELDS), {"mean": jnp.ones(3), "var": jnp.ones(3)}
    variables = {"params": params, "batch_stats": statistics}

    def is_custom(x, evaluates=False):
        def apply(x):
            return layer.apply(variables, x, evaluates, mutable=["batch_stats"])

        return "custom_vjp_call" in str(jax.make_jaxpr(apply)(x))

    assert not is_custom(x)
    with ops.use_backend("gpu"):
        assert is_custom(x) and is_custom(x.astype(jnp.bfloat16))
        assert not is_custom(x, evaluates=True)


def test_bfloat16_input_computes_in_float32(x, params):
    low = x.astype(jnp.bfloat16)
    with ops.use_backend("gpu"):
        ours = run(BatchNorm, low, params)
    assert ours[0][1][0].dtype == jnp.bfloat16
    assert ours[0][1][1]["batch_stats"]["mean"].dtype == jnp.float32
    # The output and the input gradient are rounded to half a unit in bfloat16's last place.
    assert_close(ours[1], run(nn.BatchNorm, low.astype(jnp.float32), params)[1], 2**-7)


def test_means_far_from_zero_lose_no_precision(params):
    """Against exact gradients: E[x²] - mean² and its gradient lose digits there."""
    x = draw(64, 16, 16, 3, seed=1) + jnp.array([0.0, 100.0, -100.0])
    weights = draw(*x.shape, seed=2)

    def total(normalize, x, params):
        return (normalize(x, params) * weights).sum()

    def ours(x, params):
        return batch_norm(x, params["scale"], params["bias"], 1e-5)[0]

    def exact(x, params):
        centered = x - x.mean((0, 1, 2))
        variance = (centered**2).mean((0, 1, 2))
        return centered / jnp.sqrt(variance + 1e-5) * params["scale"] + params["bias"]

    def gradients(function, *arguments):
        gradient = jax.grad(lambda *arguments: total(function, *arguments), (0, 1))
        return jax.jit(gradient, compiler_options=AS_SHIPPED)(*arguments)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (x, params))
        reference = gradients(exact, *wide)
    # The float32 variance itself is off by 1e4 roundings, and with it all gradients.
    assert_close(gradients(ours, x, params), reference, 1e-3)


def test_requires_the_mode_as_linen_does(x):
    for module in (BatchNorm, nn.BatchNorm):
        with pytest.raises(ValueError, match="use_running_average"):
            module().init(jax.random.key(0), x)
        with pytest.raises(ValueError, match="use_running_average"):
            module(use_running_average=True).init(jax.random.key(0), x, True)


def test_bfloat16_parameters_have_bfloat16_gradients(x, params):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    with ops.use_backend("gpu"):
        _, gradients = run(BatchNorm, x, low)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradients[1]))


def test_evaluation_matches_linen(x, params):
    statistics = {"mean": jnp.array([3.0, -1, 0]), "var": jnp.array([0.5, 1, 2])}
    variables = {"params": params, "batch_stats": statistics}
    evaluated = [module(**FIELDS).apply(variables, x, True) for module in (BatchNorm, nn.BatchNorm)]
    assert_close(*evaluated, 1e-6)
