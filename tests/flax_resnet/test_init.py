"""Initial variables: distributions, own initializers and seeds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnet import ResNet, create_model, init_variables
from flax_resnet.layers import VarianceScaling


def assert_same_distributions(ours, theirs):
    """Compare the leaves: random ones by standard deviation and maximum, others exactly."""

    def same_distribution(path, a, b):
        where = jax.tree_util.keystr(path)
        assert a.shape == b.shape and a.dtype == b.dtype, where
        if path[-1].key == "kernel" and np.any(b):
            assert abs(a.mean()) < 5 * b.std() / a.size**0.5, where
            np.testing.assert_allclose(a.std(), b.std(), rtol=0.15, err_msg=where)
            np.testing.assert_allclose(abs(a).max(), abs(b).max(), rtol=0.5, err_msg=where)
        else:
            np.testing.assert_array_equal(a, b, where)

    jax.tree_util.tree_map_with_path(same_distribution, ours, theirs)


@pytest.mark.parametrize(
    "fields",
    [
        dict(block="residual", zero_init_last=True),
        dict(zero_init_last=True, groups=4, stem="deep", se_ratio=0.25, conv_bias="all"),
        dict(zero_init_last=True, preactivation=True, norm="group", weight_standardization=True),
    ],
)
def test_init_variables_has_the_distributions_of_model_init(fields):
    model = ResNet((1,), width=32, num_classes=9, **fields)
    ours = init_variables(model, 0, (32, 32, 3))
    key = jax.random.key(0, impl="rbg")  # compiles in a fifth of the default's time
    assert_same_distributions(ours, jax.jit(model.init)(key, jnp.zeros((1, 32, 32, 3))))


@pytest.mark.parametrize(
    "initializer",
    [
        VarianceScaling(0.5, "fan_in", "uniform"),
        VarianceScaling(3.0, "fan_out", "normal"),
        nn.initializers.variance_scaling(0.5, "fan_in", "truncated_normal"),
        nn.initializers.constant(0.25),
    ],
)
def test_init_variables_uses_the_kernel_init_of_the_modules(initializer):
    own_conv = partial(nn.Conv, kernel_init=initializer)
    model = ResNet((1,), "residual", 32, stem="cifar", num_classes=4, conv=own_conv)
    variables = init_variables(model, 0, (8, 8, 3))
    kernel = variables["params"]["stage1_block1"]["conv2"]["kernel"]
    expected = initializer(jax.random.key(1), (3, 3, 32, 32), jnp.float32)
    assert kernel.shape == expected.shape and kernel.dtype == np.float32
    np.testing.assert_allclose(kernel.std(), expected.std(), rtol=0.05)
    np.testing.assert_allclose(abs(kernel).max(), abs(expected).max(), rtol=0.3)
    first = variables["params"]["stage1_block1"]["conv1"]["kernel"]
    assert np.array_equal(kernel, first) == (expected.std() == 0)  # every kernel has its own key
    usual = init_variables(ResNet((1,), "residual", 32, stem="cifar", num_classes=4), 0, (8, 8, 3))
    head, usual_head = (v["params"]["head"]["kernel"] for v in (variables, usual))
    np.testing.assert_array_equal(head, usual_head)


class OwnNorm(nn.Module):
    """A user-defined module whose parameter has no initializer field."""

    @nn.compact
    def __call__(self, x, use_running_average=None):
        return x * self.param("gain", nn.initializers.constant(0.5), (x.shape[-1],))


def test_init_variables_uses_model_init_for_parameters_without_an_initializer_field():
    model = ResNet((1,), "residual", 8, stem="cifar", num_classes=4, norm=OwnNorm)
    ours = init_variables(model, 3, (8, 8, 3))["params"]
    theirs = model.init(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)
    np.testing.assert_array_equal(ours["stage1_block1"]["norm2"]["gain"], np.full(8, 0.5))
    assert np.std(ours["stem_conv"]["kernel"]) > 0


def test_init_variables_follows_the_seed():
    model = create_model("resnet20")
    first, same, other = (init_variables(model, seed, (8, 8, 3)) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, same))
    assert not np.array_equal(
        first["params"]["stem_conv"]["kernel"], other["params"]["stem_conv"]["kernel"]
    )
