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
    library.load.cache_clear()


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


# Image sizes, kernel size, padding: a kernel larger than its image; one that the library computes
# by its reference code.
LEFT_TO_XLA = {"larger": (3, 5, 0), "slow": (8, 31, 32)}


@pytest.mark.parametrize("name", LEFT_TO_XLA)
def test_sizes_without_fast_code_are_left_to_xla(name):
    size, length, padding = LEFT_TO_XLA[name]
    x, kernel = draw(2, size, size, 4), draw(length, length, 4, 3, seed=1)

    def gradients(x, kernel):
        pair = (padding, padding)
        return jax.grad(lambda *a: (conv(*a, padding=(pair, pair)) ** 2).sum(), (0, 1))(x, kernel)

    assert calls(gradients, x, kernel) == 0
    ours = jax.jit(gradients)(x, kernel)
    with ops.use_xla_ops():
        plain = jax.jit(gradients)(x, kernel)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_sizes_at_which_the_library_would_end_the_process_are_left_to_xla():
    from flax_resnet.ops.onednn import convolutions, handler

    images = 2, 65536, 65536, 16
    huge = convolutions.Geometry(images, (3, 3, 16, 16), (1, 1), (1,) * 4, (1, 1), 1)
    assert not handler.is_supported(huge)


def test_arrays_whose_types_are_sharded_are_left_to_xla():
    axis_types = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("data",), axis_types=axis_types, devices=jax.devices()[:2])
    x, kernel = draw(4, 16, 16, 8), draw(3, 3, 8, 8, seed=1)
    plain = jax.jit(conv)(x, kernel)
    with jax.set_mesh(mesh):
        spec = jax.sharding.PartitionSpec("data")
        sharded = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
        ours = jax.jit(conv)(sharded, kernel)
        assert jax.typeof(ours).sharding.spec[0] == "data"
        np.testing.assert_allclose(ours, plain, rtol=0, atol=CLOSE)


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


TRACES = """
import json, threading, jax, numpy as np
from flax_resnet import ops
from flax_resnet.ops.dispatch import NHWC
images, kernel = np.ones((8, 16, 16, 8), np.float32), np.ones((3, 3, 8, 8), np.float32)
barrier, sums = threading.Barrier(8), []
def compute():
    barrier.wait()
    one = lambda *a: ops.conv_general_dilated(*a, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC)
    sums.append(float(jax.jit(one)(images, kernel).sum()))
threads = [threading.Thread(target=compute) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(json.dumps(sums))
"""


def test_threads_trace_at_the_same_time():
    # Sums of ones: 46 of 16 * 3 pixels along each axis are in the image, from 8 channels to 8.
    assert run(TRACES) == [8 * 46 * 46 * 8 * 8] * 8


@pytest.mark.parametrize("limit", [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}])
def test_it_is_not_used_with_fewer_threads_than_it_waits_for(limit):
    script = "import json; from flax_resnet import ops; print(json.dumps(ops.default_backend()))"
    assert run(script, OMP_NUM_THREADS="2", **limit) == "cpu"
    assert run(script, OMP_NUM_THREADS="2") == "onednn"


def run_script(script, **environment):
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags(1)} | environment
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def run(script=SCRIPT, **environment):
    done = run_script(script, **environment)
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


@pytest.mark.parametrize("value", ["0", "false", "Off"])
def test_it_can_be_switched_off(monkeypatch, value):
    monkeypatch.setenv(library.SWITCH, value)
    library.is_available.cache_clear()
    assert ops.default_backend() == "cpu"


def assert_not_used(caplog, reason):
    library.is_available.cache_clear()
    library.load.cache_clear()
    assert ops.default_backend() == "cpu"
    assert reason in caplog.text


# By the name of a file of the wheel in place of the library: why it cannot be used.
UNUSABLE = {"libother.so": "it has no file libother.so", "METADATA": "invalid ELF header"}


@pytest.mark.parametrize("file", UNUSABLE)
def test_a_library_that_cannot_be_loaded_is_reported_and_not_used(monkeypatch, caplog, file):
    monkeypatch.setattr(library, "FILE", file)
    assert_not_used(caplog, f"{UNUSABLE[file]}; XLA convolves instead")


@pytest.mark.parametrize(
    "header, found", [("#define XLA_FFI_API_MAJOR 1\n", "1"), ("// moved\n", "unknown")]
)
def test_another_interface_of_xla_is_not_used(monkeypatch, caplog, tmp_path, header, found):
    folder = tmp_path / "xla" / "ffi" / "api"
    folder.mkdir(parents=True)
    (folder / "c_api.h").write_text(header)
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    assert_not_used(caplog, f"the interface of XLA's foreign functions is {found}, not 0")


def test_another_library_of_that_name_is_reported_and_not_used(monkeypatch, caplog):
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path: object())
    assert_not_used(caplog, "its file libdnnl.so.3 is another library")


def test_without_a_working_compiler_it_is_not_used(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    library.is_available.cache_clear()
    assert ops.default_backend() == "cpu"
    assert "cannot be used: import of llvmlite.binding halted" in caplog.text
