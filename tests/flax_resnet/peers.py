"""Other libraries' networks: import, loading of our weights, comparison of numbers.

Nothing is downloaded: the peers get our random parameters and batch norm statistics.
"""

import functools
import importlib.util
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import init_variables

LEARNING_RATE = 0.1

# A gradient here compiles for seconds and runs for a tenth of a second.
jit = functools.partial(jax.jit, compiler_options={"xla_llvm_disable_expensive_passes": True})


def peer(name):
    """Import another library's module; skip the test if it is not installed."""
    library = name.partition(".")[0]
    if library == "keras":
        os.environ["KERAS_BACKEND"] = "jax"
        if pytest.importorskip("keras").backend.backend() != "jax":
            pytest.skip("keras was imported with another backend than JAX")
    # transformers imports torchvision if it is installed.
    if library in ("timm", "torchvision", "transformers"):
        pytest.importorskip("torch")
        if importlib.util.find_spec("torchvision"):
            import_torchvision()
    return pytest.importorskip(name)


@functools.cache
def import_torchvision():
    """Import torchvision even if its compiled operators are for another PyTorch build.

    The operators are then missing, and the import fails at the first one that it registers: declare
    it and try again. The returned object keeps the declarations alive.
    """
    torch = importlib.import_module("torch")
    operators = torch.library.Library("torchvision", "FRAGMENT")
    while True:
        try:
            importlib.import_module("torchvision")
            return operators
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not missing:
                raise
            operators.define(f"{missing[1]}(Tensor x) -> Tensor")


# Values ------------------------------------------------------------------------------------


def randomized(model, size=32, channels=3):
    """Return variables in which every leaf matters: no unit scales, no zero biases or means."""
    rng = np.random.default_rng(0)
    ranges = {"scale": (0.5, 1.0), "var": (0.5, 1.5), "bias": (-0.2, 0.2), "mean": (-0.2, 0.2)}

    def draw(path, leaf):
        if (kind := path[-1].key) in ranges:
            return rng.uniform(*ranges[kind], leaf.shape).astype(np.float32)
        return leaf

    variables = init_variables(model, 0, (size, size, channels))
    return jax.tree_util.tree_map_with_path(draw, variables)


def random_images(size=64, batch=2):
    return np.random.default_rng(1).standard_normal((batch, size, size, 3), np.float32)


def to_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def assert_close(ours, theirs, what):
    """Assert a maximum difference of 1e-4 of the maximum of ``theirs``."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    assert np.isfinite(theirs).all() and theirs.std() > 1e-3, what
    difference = abs(ours - theirs).max() / abs(theirs).max()
    assert difference <= 1e-4, f"{what}: {difference:.1e}"


def assert_same(ours, theirs):
    """Assert equality bit by bit."""
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def assert_close_in_norm(ours, theirs, what, tolerance=1e-6):
    """Assert a difference within ``tolerance`` of the norm of ``theirs``, or of 1e-3 if less.

    For gradients, which are not continuous: a ReLU's input that is zero within rounding is active
    on one side only, and one such value changes a small network's gradient by up to 1e-2. In
    float64 no input is that close to zero. Our pooled features are float32 even then; 3e-7 was
    measured. Gradients vanish for biases that a following batch norm removes.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, what
    difference = np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-3)
    assert difference <= tolerance, f"{what}: {difference:.1e}"


# Our networks ------------------------------------------------------------------------------


def evaluate(model, variables, images):
    """Return the maps of the endpoints and the logits of one forward pass."""
    logits, state = model.apply(
        variables,
        images,
        capture_intermediates=lambda module, method: method == "endpoints",
        mutable=["intermediates"],
    )
    [maps] = state["intermediates"]["endpoints"]
    return list(maps.values()), logits


def logit_weights(model, batch=2):
    """Return random weights of the logits, to compare the gradient of their sum."""
    return np.random.default_rng(2).standard_normal((batch, model.num_classes))


def images_gradient(model, variables, images):
    weights = logit_weights(model)

    @jit
    def gradient(images):
        return jax.grad(lambda images: jnp.sum(model.apply(variables, images) * weights))(images)

    return gradient(images)


def cross_entropy(logits, labels):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def sgd_step(model, variables, images, labels):
    """Return the variables after one step, and the loss's gradient with respect to the images."""

    @jit
    def step(variables, images):
        def loss(params, images):
            logits, updates = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, labels), updates

        gradients, updates = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], images)
        params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, variables["params"], gradients[0])
        return {"params": params} | updates, gradients[1]

    return step(variables, images)


# Names -------------------------------------------------------------------------------------


def translate(variables, rules):
    """Return ``{peer's module: {our leaf: value}}`` by regular expressions on our module paths."""
    modules = {}
    for collection in variables.values():
        for path, value in jax.tree_util.tree_flatten_with_path(collection)[0]:
            *module, leaf = [entry.key for entry in path]
            name = "/".join(module)
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            modules.setdefault(name, {})[leaf] = np.asarray(value)
    return modules


def one_less(template):
    """Return a replacement in which ``<1>`` is the first group's number minus one, and so on."""
    return lambda match: re.sub(
        r"<(\d)>", lambda group: str(int(match[int(group[1])]) - 1), match.expand(template)
    )
