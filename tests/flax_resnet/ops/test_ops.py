"""Values and gradients of the CPU and GPU implementations against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from flax_resnet import create_model, init_variables, ops
from flax_resnet.ops import chunks, dispatch, im2col, winograd
from flax_resnet.ops.norm import BatchNorm
from tests.flags import AS_SHIPPED

# Both sides round: they differ by a few float32 roundings of the sums.
CLOSE = 1e-5


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def distance(ours, plain):
    """Return the maximum distance of two leaves, relative to the norm of XLA's."""
    norm = jnp.linalg.norm
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True)
    return max(float(norm((a - b).ravel()) / norm(b.ravel())) for a, b in pairs)


def value_and_gradients(function, *arguments):
    """Return the value, and the gradients of a sum with a random weight for each output."""

    def total(*arguments):
        y = function(*arguments)
        return (y * draw(*y.shape, seed=9)).sum(), y

    run = jax.value_and_grad(total, tuple(range(len(arguments))), has_aux=True)
    (_, y), gradients = jax.jit(run, compiler_options=AS_SHIPPED)(*arguments)
    return y, gradients


def both(function, *arguments):
    fast = value_and_gradients(function, *arguments)
    with ops.use_xla_ops():
        return fast, value_and_gradients(function, *arguments)


def conv(x, kernel, stride=1, pad=None, groups=1):
    pad = kernel.shape[0] // 2 if pad is None else pad
    return ops.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=dispatch.NHWC,
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    ("form", "x", "kernel", "stride"),
    [
        (winograd.conv3x3, (8, 8, 8, 128), (3, 3, 128, 160), 1),
        (winograd.conv3x3, (128, 2, 2, 512), (3, 3, 512, 512), 1),
        (im2col.conv, (40, 2, 2, 6), (3, 3, 6, 4), 1),
        (im2col.conv, (40, 4, 3, 6), (3, 3, 6, 4), 2),
        (im2col.conv, (1, 7, 7, 512), (3, 3, 512, 512), 1),
        (None, (128, 32, 32, 3), (3, 3, 3, 16), 1),
        (None, (8, 16, 16, 64), (3, 3, 64, 128), 1),
        (None, (2, 32, 32, 64), (3, 3, 64, 64), 2),
    ],
)
def test_shape_selects_the_implementation(monkeypatch, form, x, kernel, stride):
    called = []
    for module, name in ((winograd, "conv3x3"), (im2col, "conv")):
        function = getattr(module, name)
        record = functools.partial(lambda f, *args: called.append(f) or f(*args), function)
        monkeypatch.setattr(module, name, record)
    jax.eval_shape(lambda x, kernel: conv(x, kernel, stride), *map(jnp.empty, (x, kernel)))
    assert called[:1] == ([form] if form else [])


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "groups"),
    [
        pytest.param((8, 8, 8, 128), (3, 3, 128, 160), 1, 1, id="winograd"),
        pytest.param((128, 32, 32, 3), (3, 3, 3, 16), 1, 1, id="images"),
        pytest.param((3, 5, 7, 6), (1, 1, 6, 4), 1, 1, id="1x1"),
        pytest.param((3, 5, 7, 6), (1, 1, 6, 4), 2, 1, id="1x1 strided"),
        pytest.param((3, 1, 1, 6), (3, 3, 6, 4), 1, 1, id="3x3 of one pixel"),
        pytest.param((3, 2, 2, 6), (3, 3, 6, 4), 2, 1, id="3x3 strided to one pixel"),
        pytest.param((40, 2, 2, 6), (3, 3, 6, 4), 1, 1, id="3x3 of four pixels"),
        pytest.param((40, 4, 3, 6), (3, 3, 6, 4), 2, 1, id="3x3 strided to four pixels"),
        pytest.param((1, 9, 6, 6), (7, 5, 6, 4), 1, 1, id="7x5 of one image"),
        pytest.param((2, 1, 3, 6), (7, 7, 6, 4), 2, 1, id="7x7 wider than the map"),
        pytest.param((2, 6, 6, 48), (3, 3, 4, 48), 1, 12, id="groups of 4"),
        pytest.param((2, 6, 6, 80), (3, 3, 40, 80), 2, 2, id="groups of 40"),
        pytest.param((2, 6, 6, 10), (3, 3, 2, 15), 1, 5, id="5 groups"),
    ],
)
def test_convolution_matches_xla(x, kernel, stride, groups):
    arguments = draw(*x), draw(*kernel, seed=1)
    fast, plain = both(lambda x, kernel: conv(x, kernel, stride, groups=groups), *arguments)
    assert fast[0].shape == plain[0].shape
    assert distance(fast, plain) < CLOSE


@pytest.mark.parametrize("shape", [(4, 8, 8), (6, 7, 9), (5, 1, 4), (7, 3, 3)])
@pytest.mark.parametrize("parts", [1, 3])
def test_3x3_of_any_size_in_any_number_of_chunks(monkeypatch, shape, parts):
    monkeypatch.setattr(chunks, "count", lambda x, limit: parts)
    x, kernel = draw(*shape, 5), draw(3, 3, 5, 3, seed=1)
    ours = value_and_gradients(winograd.conv3x3, x, kernel)
    with ops.use_xla_ops():
        assert distance(ours, value_and_gradients(conv, x, kernel)) < CLOSE


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_any_linen_convolution(padding):
    images = draw(2, 2, 5, 3)  # VALID: an empty output
    layer = nn.Conv(4, (3, 3), padding=padding, conv_general_dilated=ops.conv_general_dilated)
    y, variables = layer.init_with_output(jax.random.key(0), images)
    with ops.use_xla_ops():
        np.testing.assert_allclose(layer.apply(variables, images), y, atol=1e-6)
    line = nn.Conv(4, (3,), conv_general_dilated=ops.conv_general_dilated)
    assert line.init_with_output(jax.random.key(0), images[0])[0].shape == (2, 5, 4)


def test_gradients_inside_shard_map_with_check_vma():
    x, kernel = draw(8, 8, 8, 128), draw(3, 3, 128, 128, seed=1)

    def loss(kernel, x):
        return jax.lax.pmean((conv(x, kernel) ** 2).mean(), "batch")

    mesh = Mesh(jax.devices()[:2], ("batch",))
    specs = (PartitionSpec(), PartitionSpec("batch"))
    mapped = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=specs, out_specs=specs[0])
    expected = jax.grad(lambda kernel: (conv(x, kernel) ** 2).mean())(kernel)
    assert distance(jax.jit(mapped)(kernel, x), expected) < CLOSE


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (3, 4)])
@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool_matches_xla_with_ties(size, padding):
    # Few values, half of them zeros as after a ReLU: nearly every window has several maxima.
    x = jnp.maximum(jnp.round(draw(3, *size, 4)), 0)
    (y, gradients), (plain_y, plain_gradients) = both(lambda x: ops.max_pool(x, padding), x)
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_allclose(gradients[0], plain_gradients[0], atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_network_matches_xla(monkeypatch, name):
    # Smooth instead of ReLU: an input within rounding of zero would be active on one side only.
    monkeypatch.setattr(ops, "relu", jax.nn.softplus)
    model = create_model(name, num_classes=10, stage_sizes=(1,))
    images = draw(8, 64, 64, 3)
    variables = jax.tree.map(jnp.asarray, init_variables(model, 0, (64, 64, 3)))

    def run(params, images):
        changed = variables | {"params": params}
        y, updates = model.apply(changed, images, train=True, mutable=["batch_stats"])
        return jnp.concatenate([y.ravel(), *map(jnp.ravel, jax.tree.leaves(updates))])

    fast, plain = both(run, variables["params"], images)
    assert distance(fast[0], plain[0]) < CLOSE
    assert distance(fast[1], plain[1]) < CLOSE


@pytest.mark.parametrize(
    ("fields", "counts"),
    [({}, [8, 1, 2]), ({"preactivation": True}, [7, 1, 0])],
    ids=["v1", "v2"],
)
def test_network_with_gpu_implementations_matches_xla(fields, counts):
    """In float64, where rounding is too small to move an input across zero before a ReLU."""
    with jax.enable_x64(True):
        model = create_model(
            "resnet50", num_classes=10, stage_sizes=(2,), width=8, dtype=jnp.float64, **fields
        )
        images = np.random.default_rng(0).standard_normal((4, 16, 16, 3))
        variables = init_variables(model, 0, (16, 16, 3))
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)

        def run(params, images):
            changed = variables | {"params": params}
            y, updates = model.apply(changed, images, train=True, mutable=["batch_stats"])
            return jnp.concatenate([y.ravel(), *map(jnp.ravel, jax.tree.leaves(updates))])

        with ops.use_backend("gpu"):
            jaxpr = str(jax.make_jaxpr(run)(variables["params"], images))
            functions = ("batch_norm", "max_pool_custom_gradient", "_relu_with_output_gradient")
            assert [jaxpr.count(f"name={name}\n") for name in functions] == counts
            ours = value_and_gradients(run, variables["params"], images)
        with ops.use_xla_ops():
            theirs = value_and_gradients(run, variables["params"], images)
        assert max(distance(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-10


def normalized(x):
    layer = BatchNorm(use_running_average=False)
    return layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_every_pooling_window_passes_its_gradient(backend, dtype):
    """Even if XLA recomputes the pooled map with other rounding to find the maxima."""
    x = draw(2, 8, 8, 4).astype(dtype)

    def total(shift):
        return ops.max_pool(ops.relu(normalized(x) + shift), 1).sum(dtype=jnp.float32)

    with ops.use_backend(backend):
        slope = jax.jit(jax.grad(total), compiler_options=AS_SHIPPED)(jnp.asarray(10, dtype))
    assert slope == 2 * 4 * 4 * 4


@pytest.mark.parametrize("function", [normalized, ops.relu_of_sum, lambda x: ops.max_pool(x, 1)])
def test_gpu_gradients_are_differentiable(function):
    """Hessian-vector product, forward over reverse."""
    x, vector = draw(2, 8, 8, 4), draw(2, 8, 8, 4, seed=1)

    def product():
        slope = jax.grad(lambda x: (function(x) ** 3).sum())
        return jax.jvp(slope, (x,), (vector,))[1]

    with ops.use_backend("gpu"):
        ours = product()
    with ops.use_xla_ops():
        assert distance(ours, product()) < CLOSE


def test_cpu_implementations_are_for_float32_only():
    def convolves(dtype):
        x, kernel = jnp.ones((2, 8, 8, 6), dtype), jnp.ones((1, 1, 6, 4), dtype)
        return "conv_general_dilated" in str(jax.make_jaxpr(conv)(x, kernel))

    assert not convolves(jnp.float32)
    assert convolves(jnp.bfloat16)
    with ops.use_xla_ops():
        assert convolves(jnp.float32)
    assert not convolves(jnp.float32)


def test_unknown_backend_is_rejected():
    with pytest.raises(ValueError, match="unknown backend 'cuda'; valid are cpu, onednn"):
        ops.use_backend("cuda")


def test_gpu_relu_supports_forward_mode():
    x = draw(2, 3)
    with ops.use_backend("gpu"):
        _, tangent = jax.jvp(ops.relu_of_sum, (x,), (x,))
    np.testing.assert_array_equal(tangent, jax.nn.relu(x))


def test_xla_ops_support_forward_mode():
    x, kernel = draw(2, 8, 8, 6), draw(1, 1, 6, 4, seed=1)
    with ops.use_xla_ops():
        _, tangent = jax.jvp(lambda x: conv(x, kernel), (x,), (x,))
    assert distance(tangent, conv(x, kernel)) < CLOSE


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_symbolic_shapes_are_exported(backend):
    """With gradients and a symbolic height, which the custom gradients do not support."""
    kernel = draw(3, 3, 64, 64)
    count, height = jax.export.symbolic_shape("N, 2*H")
    images = jax.ShapeDtypeStruct((count, height, 16, 64), jnp.float32)

    def run(x):
        return ops.relu_of_sum(ops.max_pool(normalized(conv(x, kernel)), 1))

    with ops.use_backend(backend):
        exported = jax.export.export(jax.jit(run))(images)
        rebuilt = jax.export.deserialize(exported.serialize(vjp_order=1))
        x = draw(3, 16, 16, 64)
        assert rebuilt.call(x).shape == (3, 8, 8, 64)
        slopes = [jax.jit(jax.grad(lambda x, f=f: f(x).sum()))(x) for f in (rebuilt.call, run)]
        assert distance(*slopes) < 1e-4
