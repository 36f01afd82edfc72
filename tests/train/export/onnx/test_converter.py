"""JAX operations in ONNX Runtime compute what JAX computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from flax_resnet import downsampling
from tests.train.export.onnx.conversion import kinds, run, to_onnx
from train.runtime.errors import UsageError

SHAPE = (6, 5, 4)
KERNEL = np.random.default_rng(1).standard_normal((3, 3, 4, 8)).astype(np.float32)
VECTOR = np.linspace(-1, 2, 4, dtype=np.float32)
NHWC = ("NHWC", "HWIO", "NHWC")


def images(shape=SHAPE, dtype=np.float32, scale=2.0):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max + 1, (10, *shape), dtype)
    return (scale * rng.standard_normal((10, *shape))).astype(dtype)


def check(function, shape=SHAPE, dtype=np.float32, **tolerances):
    """Compare a function's outputs in batches of 1, 2 and 7; return the model."""
    x, model = images(shape, dtype), to_onnx(function, shape, dtype)
    expected, outputs = np.asarray(function(jnp.asarray(x))), run(model, x)
    assert outputs.dtype == expected.dtype and outputs.shape == expected.shape
    assert len(np.unique(expected)) > 1
    np.testing.assert_allclose(outputs, expected, **{"rtol": 1e-5, "atol": 1e-6} | tolerances)
    return model


def conv(x, kernel=KERNEL, strides=(1, 1), padding=((1, 1), (1, 1)), **fields):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, **fields)


ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "hard_silu", "hard_tanh"),
    *("mish", "gelu", "softplus", "sigmoid", "log_sigmoid", "soft_sign", "squareplus", "tanh"),
    *("softmax", "log_softmax", "standardize"),
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    check(getattr(jax.nn, name), rtol=1e-4)


ELEMENTWISE = {
    "erfc": lambda x: jax.nn.gelu(x, approximate=False),
    "rsqrt": lambda x: lax.rsqrt(abs(x) + 0.1),
    "integer powers": lambda x: x**2 + x**3 + (abs(x) + 1) ** -2,
    "pow": lambda x: (abs(x) + 0.5) ** 1.7,
    "trigonometry": lambda x: jnp.sin(x) + jnp.cos(x),
    "rounding": lambda x: jnp.round(2 * x) / 2 + jnp.floor(x) * jnp.ceil(x) + jnp.sign(x),
    "comparisons": lambda x: (x > 0) + 2.0 * (x >= 1) + 4.0 * (x < -1) + 8.0 * (x <= 2),
    "logic": lambda x: jnp.where((x > 0) & ~(x > 1) | (x < -1) ^ (x != x), x, 0 * x),
    "is_finite": lambda x: jnp.where(jnp.isfinite(1 / jnp.maximum(x, 0)), x, -1.0),
    "clamp": lambda x: jnp.clip(x, -0.5, 1.5) + lax.clamp(-1.0, x, 0.25),
    "scalars": lambda x: 2 - x / 3 + jnp.max(x * 0 + 2),
    "channels": lambda x: (x - VECTOR) * VECTOR / (VECTOR + 2) + VECTOR[:, None, None, None][1],
    "rows": lambda x: x * np.arange(6, dtype=np.float32)[:, None, None] + VECTOR,
    "another layout": lambda x: x + jnp.mean(x, (1, 2), keepdims=True) * x[:, :1],
    "barrier": lambda x: lax.optimization_barrier(x) + lax.stop_gradient(x),
    "integers": lambda x: (x * 10).astype(jnp.int32) // 3 - 1,
    "checkpoint": jax.checkpoint(lambda x: jnp.exp(x) - 1),
    "exp": lambda x: jnp.expm1(x) + jnp.log1p(abs(x)) + jnp.log(abs(x) + 1) + jnp.sqrt(abs(x)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_operations(name):
    check(ELEMENTWISE[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["log1p", "expm1"])
def test_values_near_zero_keep_their_digits(name):
    """Compared in double precision with NumPy, up to the ends of float32's range."""
    sizes = np.geomspace(1e-30, 80, 399)
    values = np.float32([*sizes, *-sizes[sizes < 0.999], 0, np.inf, -1, -3, -200, 3e38])
    values = np.resize(values, (10, *SHAPE))
    with np.errstate(all="ignore"):
        expected = np.float32(getattr(np, name)(np.float64(values)))
    outputs = run(to_onnx(getattr(lax, name), SHAPE), values)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


WINDOWS = {
    "3×3": lambda x: conv(x),
    "stride": lambda x: conv(x, strides=(2, 1), padding=((0, 1), (2, 0))),
    "same": lambda x: conv(x, strides=(2, 2), padding="SAME"),
    "dilation": lambda x: conv(x, padding=((2, 2), (2, 2)), rhs_dilation=(2, 2)),
    "groups": lambda x: conv(x, KERNEL[:, :, :2], feature_group_count=2),
    "depthwise": lambda x: conv(x, KERNEL[:, :, :1], feature_group_count=4),
    "bias": lambda x: conv(x) + np.arange(8, dtype=np.float32),
    "a bias of the rows": lambda x: conv(x) + np.arange(6, dtype=np.float32)[:, None, None],
    "computed kernel": lambda x: conv(x, KERNEL * jnp.tanh(KERNEL).mean((0, 1, 2))),
    "max": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "max of negative values": lambda x: nn.max_pool(-abs(x) - 1, (2, 2), (1, 1), "SAME"),
    "average": lambda x: nn.avg_pool(x, (2, 3), (2, 2), ((0, 1), (1, 1))),
    "average of pixels": lambda x: nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False),
    "shortcut": lambda x: downsampling.average_pool(x, 2),
    "dilated shortcut": lambda x: downsampling.average_pool(x, 1, 2),
    "sum": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name):
    check(WINDOWS[name], rtol=1e-4, atol=1e-5)


def test_convolutions_of_one_and_three_dimensions():
    def over_channels(x):  # as in efficient channel attention
        gates = jnp.mean(x, (1, 2))[:, :, None]
        numbers = ("NWC", "WIO", "NWC")
        kernel = KERNEL[:, :1, :1, :1].reshape(3, 1, 1)
        gates = lax.conv_general_dilated(gates, kernel, (1,), [(1, 1)], dimension_numbers=numbers)
        return x * jax.nn.sigmoid(gates[:, :, 0])[:, None, None, :]

    check(over_channels)
    kernel = KERNEL.reshape(3, 3, 1, 4, 8)
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    check(
        lambda x: lax.conv_general_dilated(
            x[..., None, :], kernel, (1, 1, 1), "SAME", dimension_numbers=numbers
        )
    )


SHAPES = {
    "every second pixel": lambda x: x[:, ::2, ::2],
    "from the second pixel": lambda x: x[:, 1::3, :, 1:3],
    "one row": lambda x: x[:, 2],
    "last channel": lambda x: x[..., -1],
    "one pixel": lambda x: x[:, 1, 2],
    "a row as a list": lambda x: x[:, np.array([2]), ::2],
    "slices beyond the ends": jax.vmap(lambda x: lax.dynamic_slice(x, (5, 9, 1), (3, 2, 3))),
    "clipped indices": lambda x: jnp.take(x, np.array([0, 9]), axis=1, mode="clip"),
    "chosen rows": lambda x: x[:, np.array([3, 0, 5])],
    "reversed": lambda x: x[:, ::-1, :, ::-1],
    "take": lambda x: jnp.take(x, np.array([1, 3]), axis=3),
    "zeros": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (1, 0))),
    "ones": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=1),
    "crop": lambda x: lax.pad(x, 0.0, [(0, 0, 0), (-1, 2, 0), (1, -2, 0), (0, 0, 0)]),
    "reflect": lambda x: jnp.pad(x, ((0, 0), (2, 1), (1, 1), (0, 0)), mode="reflect"),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x[:, :, :, :1], x], axis=-1),
    "with a constant": lambda x: jnp.concatenate([jnp.mean(x, (1, 2)), 0 * x[:, 0, 0]], axis=-1),
    "split": lambda x: jnp.split(x, 2, axis=1)[0] * jnp.split(x, [2, 5], axis=1)[2],
    "stack": lambda x: jnp.stack([x, -x], axis=2),
    "transpose": lambda x: x.transpose(0, 2, 3, 1) + 1,
    "flatten": lambda x: x.reshape(x.shape[0], -1),
    "groups of channels": lambda x: x.reshape(*x.shape[:3], 2, 2).sum(3),
    "space to depth": lambda x: (
        x[:, :, :4].reshape(-1, 3, 2, 2, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 3, 2, 16)
    ),
    "rows of pixels": lambda x: x.reshape(x.shape[0], -1, 4).mean(1),
    "squeeze": lambda x: jnp.squeeze(x[:, :1, :, :1], (1, 3)),
    "expand": lambda x: x[:, None, :, :, None] * VECTOR[:, None],
    "broadcast": lambda x: jnp.broadcast_to(x[:, :, :1], x.shape),
    "a value for every image": lambda x: jnp.broadcast_to(VECTOR, (x.shape[0], 4)) + x[:, 0, 0],
    "the same for all": lambda x: jnp.concatenate(
        [jnp.broadcast_to(VECTOR, (x.shape[0], 4)), x[:, 0, 0]], axis=1
    ),
    "repeat": lambda x: jnp.repeat(jnp.mean(x, (1, 2)), 3, axis=1),
    "tile": lambda x: jnp.tile(x, (1, 1, 2, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    check(SHAPES[name])


REDUCTIONS = {
    "mean": lambda x: x.mean((1, 2)),
    "sum": lambda x: x.sum(2),
    "max": lambda x: x.max((1, 3)) - x.min((1, 3)),
    "prod": lambda x: x.prod(3),
    "variance": lambda x: x.var((1, 2, 3)),
    "norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "dense": lambda x: x.mean((1, 2)) @ KERNEL[0, 0] + np.arange(8, dtype=np.float32),
    "dense of maps": lambda x: x @ KERNEL[0, 0] + np.arange(8, dtype=np.float32),
    "transposed": lambda x: jnp.einsum("nhwc,kc->nkhw", x, KERNEL[0, 0].T),
    "attention": lambda x: jnp.einsum("nqc,nkc->nqk", x[:, 0], x[:, 1]),
    "gram": lambda x: jnp.einsum("nqc,nqd->ncd", x[:, 0], x[:, 1]),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name):
    check(REDUCTIONS[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_images(dtype):
    model = check(lambda x: conv(x.astype(jnp.float32) / 300), dtype=dtype, rtol=1e-4, atol=1e-3)
    assert model.graph.input[0].type.tensor_type.elem_type in (2, 4)  # UINT8, UINT16


class Norms(nn.Module):
    """Norms without running statistics."""

    @nn.compact
    def __call__(self, x):
        x = nn.GroupNorm(2, scale_init=nn.initializers.normal())(x)
        return nn.LayerNorm(bias_init=nn.initializers.normal())(x) + nn.InstanceNorm()(x)


def test_norms_of_single_images():
    variables = Norms().init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    check(lambda x: Norms().apply(variables, x), rtol=1e-3, atol=1e-4)


# The form of the graph -------------------------------------------------------------------------


def test_graph_has_a_single_transpose_and_fused_biases():
    def net(x):
        x = (x.astype(jnp.float32) - 100) / 50
        x = jax.nn.relu(conv(x) + np.arange(8, dtype=np.float32))
        x = x + jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 3), (0, 2), (0, 0)))
        return jax.nn.softmax(x.mean((1, 2)) @ KERNEL[0, 0].T + VECTOR)

    model = check(net, dtype=np.uint8, rtol=1e-4)
    assert kinds(model) == [
        *("Add", "Cast", "Conv", "Div", "Div", "Exp", "Gemm", "Pad", "ReduceMax", "ReduceMean"),
        *("ReduceSum", "Relu", "Reshape", "Reshape", "Slice", "Sub", "Sub", "Transpose"),
    ]
    [conv_node] = [node for node in model.graph.node if node.op_type == "Conv"]
    [dense_node] = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert len(conv_node.input) == len(dense_node.input) == 3
    assert model.graph.node[0].op_type == "Transpose"  # of bytes, not of floats


def test_bias_is_not_moved_into_a_convolution_that_others_read():
    check(lambda x: jnp.maximum(conv(x), conv(x) + 1), rtol=1e-4, atol=1e-5)

    def shared(x):
        y = conv(x)
        return y * (y + np.arange(8, dtype=np.float32))

    check(shared, rtol=1e-4, atol=1e-4)


def test_batch_is_symbolic_and_nodes_have_the_names_of_their_modules():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(2, (3, 3), name="first")(x)

    variables = Net().init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    model = to_onnx(lambda x: Net().apply(variables, x), SHAPE)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    assert "Net/first/Conv" in [node.name for node in model.graph.node]


def test_equal_constants_are_stored_once():
    model = to_onnx(lambda x: conv(x) + conv(x + 1), SHAPE)
    assert [list(each.dims) for each in model.graph.initializer].count([8, 4, 3, 3]) == 1


UNSUPPORTED = {
    "'sort'": lambda x: jnp.sort(x, axis=1),
    "'while'": lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x),
    "transposed convolution": lambda x: lax.conv_transpose(x, KERNEL, (2, 2), "SAME"),
    "computed indices": lambda x: jnp.take(VECTOR, x.astype(int), mode="clip"),
    "number of images": lambda x: x - x.mean(0),
    "any size: .*interpreted as an integer": lambda x: x * len(x),
    "overlapping windows": lambda x: lax.gather(
        x,
        np.array([[0], [1]]),
        lax.GatherDimensionNumbers((0, 2, 3, 4), (), (1,)),
        (x.shape[0], 3, 5, 4),
    ),
    "out of bounds": lambda x: jnp.take(x, np.array([0, 9]), axis=1, mode="fill"),
    "not a grid": lambda x: x[:, np.array([0, 1, 2]), np.array([0, 1, 2])],
    "several times": lambda x: x[:, np.array([1, 1])],
    "complex64": lambda x: jnp.abs(x.astype(jnp.complex64) * 1j),
    "axis of length N \\+": lambda x: jnp.broadcast_to(VECTOR[:1], (x.shape[0] + 1,)),
    "between the elements": lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]),
    "valid ONNX model: .*inconsistent type": lambda x: jnp.log1p(x.astype(jnp.float16)),
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_unsupported_operations_are_named(message):
    with pytest.raises(UsageError, match=message) as error:
        to_onnx(UNSUPPORTED[message], SHAPE)
    assert "\n" not in str(error.value)
