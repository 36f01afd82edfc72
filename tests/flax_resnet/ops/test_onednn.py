"""Convolutions by oneDNN against XLA's own: values, gradients, devices, processes."""

import importlib.metadata
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import create_model, init_variables, ops
from flax_resnet.ops import dispatch
from flax_resnet.ops.onednn import library
from tests.conftest import ROOT
from tests.flags import xla_flags
from tests.flax_resnet.ops.test_ops import CLOSE, distance, draw

try:
    importlib.metadata.distribution(library.DISTRIBUTION)
    pytest.importorskip("llvmlite")
except importlib.metadata.PackageNotFoundError:
    pytest.skip(f"needs {library.DISTRIBUTION}", allow_module_level=True)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    """Undo what conftest.py does, so that other tests are of XLA's own convolutions."""
    monkeypatch.delenv(library.SWITCH)
    library.is_available.cache_clear()
    yield
    library.is_available.cache_clear()


def conv(x, kernel, stride=1, padding=((1, 1), (1, 1)), dilation=1, groups=1):
    return ops.conv_general_dilated(
        *(x, kernel, (stride, stride), padding),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=dispatch.NHWC,
        feature_group_count=groups,
    )


def derivatives(function, x, kernel):
    """Return values, gradients, and gradients of the squares of these."""
    weights = draw(*jax.eval_shape(function, x, kernel).shape, seed=9)

    def loss(x, kernel):
        y = function(x, kernel)
        return (y * weights).sum() + (y * y).sum()

    def squares(x, kernel):
        return sum((a * a).sum() for a in jax.grad(loss, (0, 1))(x, kernel))

    compute = [function, jax.grad(loss, (0, 1)), jax.grad(squares, (0, 1))]
    return jax.jit(lambda *arrays: [each(*arrays) for each in compute])(x, kernel)


def calls(function, *arguments):
    """Return the number of calls of the library in a compiled function."""
    return jax.jit(function).lower(*arguments).as_text().count("@flax_resnet_onednn(")


# Image sizes, channels, outputs, kernel size and options.
SHAPES = {
    "3x3": ((17, 19), 16, 16, 3, {}),
    "stem": ((16, 21), 3, 24, 7, {"stride": 2, "padding": ((3, 3), (3, 2))}),
    "strided": ((16, 16), 16, 32, 3, {"stride": 2, "padding": ((0, 1), (0, 1))}),
    "dilated": ((16, 17), 8, 16, 3, {"dilation": 4, "padding": ((4, 4), (4, 4))}),
    "grouped": ((16, 17), 32, 64, 3, {"groups": 8}),
    "strided groups": ((16, 17), 32, 32, 3, {"groups": 4, "stride": 2}),
    "depthwise": ((17, 16), 24, 24, 3, {"groups": 24}),
    "even kernel": ((17, 16), 5, 7, 4, {"padding": ((1, 2), (2, 1))}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_two_derivatives_are_those_of_xla(name):
    size, channels, outputs, length, options = SHAPES[name]
    x = draw(2, *size, channels)
    kernel = draw(length, length, channels // options.get("groups", 1), outputs, seed=1)

    def function(x, kernel):
        return conv(x, kernel, **options)

    with ops.use_backend("onednn"):
        assert calls(function, x, kernel) == 1
        ours = derivatives(function, x, kernel)
    with ops.use_xla_ops():
        assert distance(ours, derivatives(function, x, kernel)) < CLOSE


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "fcn_resnet50"])
def test_a_network_has_the_gradients_of_xla(name):
    model = create_model(name, num_classes=5)
    x, variables = draw(2, 64, 64, 3), init_variables(model, 0, (64, 64, 3))

    def loss(params):
        logits = model.apply(variables | {"params": params}, x)
        return jnp.mean(logits * draw(*logits.shape, seed=3))

    assert ops.default_backend() == "onednn"
    assert calls(jax.grad(loss), variables["params"]) > 10
    ours = jax.jit(jax.value_and_grad(loss))(variables["params"])
    with ops.use_backend("cpu"):
        plain = jax.jit(jax.value_and_grad(loss))(variables["params"])
    norm = jnp.sqrt(sum(jnp.vdot(a, a) for a in jax.tree.leaves(plain)))
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True)
    assert max(float(jnp.linalg.norm((a - b).ravel()) / norm) for a, b in pairs) < CLOSE


def test_an_empty_batch_and_vmap():
    x, kernel = draw(3, 2, 16, 16, 8), draw(3, 3, 8, 16, seed=1)
    assert conv(x[0, :0], kernel).shape == (0, 16, 16, 16)
    ours = jax.jit(jax.vmap(conv, (0, None)))(x, kernel)
    assert distance(ours, jnp.stack([conv(each, kernel) for each in x])) < CLOSE


def test_devices_compute_at_the_same_time_and_repeat_their_bits():
    x, kernel = draw(4, 8, 16, 16, 16), draw(3, 3, 16, 16, seed=1)

    def gradient(x, kernel):
        total = jax.grad(lambda kernel: (conv(jnp.tanh(conv(x, kernel)), kernel) ** 2).sum())
        return jax.lax.pmean(total(kernel), "devices")

    compiled = jax.pmap(gradient, "devices", in_axes=(0, None))
    repeated = [np.asarray(compiled(x, kernel)) for _ in range(20)]
    assert all((each == repeated[0]).all() for each in repeated)
    with ops.use_xla_ops():
        plain = jax.pmap(gradient, "devices", in_axes=(0, None))(x, kernel)
    assert distance(jnp.asarray(repeated[0]), plain) < CLOSE


def test_a_convolution_that_was_not_prepared_is_an_error(monkeypatch):
    from flax_resnet.ops.onednn import handler, operation

    handler._register()
    monkeypatch.setattr(operation, "prepare", lambda kind, geometry: 1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="has not prepared this convolution"):
        jax.block_until_ready(jax.jit(conv)(draw(1, 17, 17, 3), draw(3, 3, 3, 5)))


def test_sizes_that_the_library_refuses_are_named():
    from flax_resnet.ops.onednn import convolutions, handler

    wrong = convolutions.Geometry((1, 2, 2, 3), (5, 5, 3, 4), (1, 1), (0,) * 4, (1, 1), 1)
    message = r"failed with status 2, forward of .*images=\(1, 2, 2, 3\).*FLAX_RESNET_ONEDNN=0"
    with pytest.raises(library.OneDnnError, match=message):
        handler.prepare("forward", wrong)


THREADS = """
import threading
from flax_resnet.ops.onednn import handler
from flax_resnet.ops.onednn.convolutions import Geometry
start, numbers = threading.Barrier(8), []
def trace(size):
    geometry = Geometry((1, size, size, 3), (3, 3, 3, 4), (1, 1), (1,) * 4, (1, 1), 1)
    start.wait()
    numbers.append(handler.prepare("forward", geometry))
threads = [threading.Thread(target=trace, args=(size,)) for size in range(8, 16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len({*numbers}) == 8, numbers
assert len(handler._compilers) == 1, "compiled more than once"
"""


def test_threads_that_trace_at_the_same_time_register_one_function():
    done = run_script(THREADS)
    assert (done.returncode, done.stderr) == (0, "")


SCRIPT = """
import json, os, sys, jax, numpy as np
from flax_resnet import create_model, init_variables, ops
model = create_model("resnet20", num_classes=10)
images = np.random.default_rng(0).normal(size=(64, 32, 32, 3)).astype(np.float32)
variables = init_variables(model, 0, (32, 32, 3))
forward = jax.jit(model.apply)
print(json.dumps([ops.default_backend(), np.asarray(forward(variables, images)).tolist()]))
for _ in range(20):
    forward(variables, images)  # nobody waits for these
"""


def run_script(script, **environment):
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags(1)} | environment
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def run(**environment):
    done = run_script(SCRIPT, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_processes_share_compiled_programs_and_end_while_they_compute(tmp_path):
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    first = run(**environment)
    stored = {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")}
    second = run(**environment)
    assert first == second and first[0] == "onednn"
    assert {path.name for path in tmp_path.iterdir() if path.name.endswith("-cache")} == stored
    switched_off = run(**environment, **{library.SWITCH: "0"})
    assert switched_off[0] == "cpu"
    np.testing.assert_allclose(first[1], switched_off[1], rtol=0, atol=1e-4)


def test_without_the_library_it_is_not_used(monkeypatch):
    monkeypatch.setattr(library, "DISTRIBUTION", "no-such-distribution")
    library.is_available.cache_clear()
    assert ops.default_backend() == "cpu"
    with pytest.raises(ValueError, match=r"pip install 'flax-resnet\[onednn\]'"):
        ops.use_backend("onednn")


def test_a_library_that_cannot_be_loaded_is_reported_and_not_used(monkeypatch, caplog):
    monkeypatch.setattr(library, "FILE", "libother.so")
    library.is_available.cache_clear()
    library.load.cache_clear()
    try:
        assert ops.default_backend() == "cpu"
        assert "cannot be used: it has no file libother.so; XLA convolves instead" in caplog.text
    finally:
        library.load.cache_clear()


@pytest.mark.parametrize(
    "header, found", [("#define XLA_FFI_API_MAJOR 1\n", "1"), ("// moved\n", "unknown")]
)
def test_another_interface_of_xla_is_not_used(monkeypatch, caplog, tmp_path, header, found):
    folder = tmp_path / "xla" / "ffi" / "api"
    folder.mkdir(parents=True)
    (folder / "c_api.h").write_text(header)
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    library.is_available.cache_clear()
    library.load.cache_clear()
    try:
        assert ops.default_backend() == "cpu"
        assert f"the interface of XLA's foreign functions is {found}, not 0" in caplog.text
    finally:
        library.load.cache_clear()
