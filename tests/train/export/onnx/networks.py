"""Networks of the table with few channels, whose logits depend on the images."""

import contextlib

import jax
import numpy as np

from flax_resnet import create_model, fold_batch_norm, ops
from flax_resnet.variants import VARIANTS
from tests.flax_resnet.peers import randomized
from tests.flax_resnet.representatives import combination
from tests.train.export.onnx.conversion import BATCHES, run, to_onnx

SIZE = 33  # odd, so that rows and columns at the edges matter


def different_networks():
    """Return the shallowest network of each combination of fields in the table."""
    shallowest = {}
    for name in VARIANTS:
        network = sum(create_model(name).stage_sizes), name
        fields = combination(name)
        shallowest[fields] = min(shallowest.get(fields, network), network)
    return [name for _, name in shallowest.values()]


def narrow(name):
    """Return a network of the table, with its depth and operations but few channels."""
    stem_width = create_model(name).stem_width
    for width in (16, 32, 64):  # groups must divide it
        with contextlib.suppress(ValueError):
            stem = {"stem_width": width} if stem_width else {}
            return create_model(name, num_classes=7, width=width, **stem)
    raise AssertionError(f"{name} has no narrow form")


def random_images():
    """Return images of few colors, so that means over all pixels differ between them."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((sum(BATCHES), 4, 4, 3), np.float32).repeat(9, 1).repeat(9, 2)
    return coarse[:, :SIZE, :SIZE] + 0.3 * rng.standard_normal((len(coarse), SIZE, SIZE, 3))


def random_variables(model, images):
    """Return random variables with batch statistics near, but not equal to, those of the images.

    With others, what depends on the image is lost in a deep network without shortcuts.
    """
    variables = damped(model, randomized(model, SIZE))
    if "batch_stats" not in variables:
        return variables
    measuring = model.clone(norm_momentum=0.0)
    _, updates = measuring.apply(variables, images, train=True, mutable=["batch_stats"])
    rng = np.random.default_rng(1)

    def near(path, leaf):
        if path[-1].key == "var":
            return np.float32(leaf * rng.uniform(0.7, 1.5, leaf.shape) + 1e-3)
        return np.float32(leaf + 0.2 * abs(np.mean(leaf)) * rng.standard_normal(leaf.shape))

    return variables | jax.tree_util.tree_map_with_path(near, updates)


def damped(model, variables):
    """Return variables with which each block adds a fraction to its shortcut, as trained ones do.

    Otherwise a deep network is so sensitive that JAX's own logits in float32 are off by 2e-4.
    """
    last = f"{'conv' if model.preactivation else 'norm'}{3 if model.block == 'bottleneck' else 2}"

    def scale(path, leaf):
        inside = path[0].key.startswith("stage") and path[1].key == last
        return np.float32(0.25 * leaf) if inside else leaf

    params = jax.tree_util.tree_map_with_path(scale, variables["params"])
    return variables | {"params": params}


def check_network(model):
    """Compare the logits of 10 images in batches of 1, 2 and 7 with JAX's.

    Returns:
      The ONNX model and the largest difference, relative to the largest logit.
    """
    images = random_images().astype(np.float32)
    # Operation by operation: compiling the whole network takes much longer.
    with ops.use_xla_ops(), jax.disable_jit():
        variables = random_variables(model, images)
        expected = np.asarray(model.apply(variables, images))
    folded, weights = model, variables
    if model.norm == "batch":
        folded, weights = fold_batch_norm(model, variables)
    converted = to_onnx(lambda images: folded.apply(weights, images), (SIZE, SIZE, 3))
    scale = abs(expected).max()
    deviation = expected.std(axis=0).min() / scale
    assert deviation > 0.01, f"logits hardly depend on the image: {deviation}"
    return converted, abs(run(converted, images) - expected).max() / scale
