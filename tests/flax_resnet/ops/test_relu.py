"""The backend-specific ReLU against jax.nn.relu."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import ResNet, init_variables, ops


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["cpu", "gpu", "plain"])
@pytest.mark.parametrize("relu", [ops.relu, ops.relu_of_sum])
def test_values_and_gradients_match_jax(relu, backend, dtype):
    x = jnp.array([-np.inf, -2, -1e-30, -0.0, 0, 1e-30, 3, np.inf, np.nan], dtype)
    with ops.use_backend(backend):
        assert relu(x).dtype == dtype
        values = [np.asarray(f(x), np.float32) for f in (relu, jax.nn.relu)]
        np.testing.assert_array_equal(*values)  # NaN stays NaN
        # The implementations differ in the gradient at NaN.
        slopes = [np.asarray(jax.vmap(jax.grad(f))(x[:-1])) for f in (relu, jax.nn.relu)]
        np.testing.assert_array_equal(*slopes)


def test_export_has_the_implementation_of_each_platform():
    def text(*platforms):
        with ops.use_xla_ops():
            exported = jax.export.export(jax.jit(ops.relu), platforms=platforms)(jnp.ones(3))
        return exported.mlir_module()

    assert "stablehlo.maximum" in text("cuda") and "stablehlo.select" not in text("cuda")
    assert "stablehlo.select" in text("cpu") and "stablehlo.maximum" not in text("cpu")
    both = text("cpu", "cuda")
    assert "stablehlo.maximum" in both and "stablehlo.select" in both


def test_no_kernel_reads_the_maps_of_many_blocks():
    """With a maximum as ReLU, 16 blocks compile to kernels with about 90 operands."""
    model = ResNet((16,), block="residual", width=8, stem="cifar", num_classes=2)
    variables, images = init_variables(model, 0, (4, 4, 3)), jnp.ones((2, 4, 4, 3))

    def loss(params):
        apply = model.apply(variables | {"params": params}, images, True, mutable=["batch_stats"])
        return apply[0].sum()

    compiled = jax.jit(jax.grad(loss)).lower(variables["params"]).compile().as_text()
    operands = [call.count("%") for call in re.findall(r" fusion\(([^)]*)\)", compiled)]
    assert operands and max(operands) < 24
