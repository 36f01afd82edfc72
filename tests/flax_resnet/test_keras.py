"""Our networks against Keras's: the same results from the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.flax_resnet import keras_nets
from tests.flax_resnet.peers import (
    LEARNING_RATE,
    assert_close,
    assert_close_in_norm,
    cross_entropy,
    evaluate,
    images_gradient,
    jit,
    logit_weights,
    peer,
    random_images,
    randomized,
    sgd_step,
    to_float64,
)

pytestmark = pytest.mark.peer


@pytest.fixture
def float64():
    """Make Keras and JAX compute in float64; see ``assert_close_in_norm``."""
    config = peer("keras").config

    def compute_in(dtype):
        config.set_floatx(dtype)
        config.set_dtype_policy(dtype)

    compute_in("float64")
    with jax.enable_x64(True):
        yield
    compute_in("float32")


@functools.cache
def small_pair(version):
    """Return a small Keras network, ours with its redundant biases, and variables of both."""
    fields = dict(version=version, stage_sizes={1: (1, 2), 2: (2, 2)}[version], width=8)
    net = keras_nets.small_net(size=32, **fields)
    biases = {1: "all", 2: "unnormalized"}[version]
    model = keras_nets.small_model(**fields, conv_bias=biases, dtype=jnp.float64)
    variables = to_float64(randomized(model))
    keras_nets.load(net, variables, keras_nets.RULES[version])
    return net, model, variables


@pytest.mark.parametrize(
    "name", ["ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"]
)
def test_evaluation_matches(name):
    keras = peer("keras")
    net, model, rules = keras_nets.keras_and_ours(name)
    variables, images = randomized(model, 64), random_images(64)
    keras_nets.load(net, variables, rules)
    maps, logits = evaluate(model, variables, images)

    lasts = [f"conv{i + 2}_block{blocks}_out" for i, blocks in enumerate(model.stage_sizes)]
    names = ["pool1_pool", *lasts]
    outputs = [*(net.get_layer(name).output for name in names), net.output]
    *their_maps, their_logits = keras.Model(net.inputs, outputs)([images], training=False)
    assert_close(logits, their_logits, "logits")
    for ours, theirs, layer in zip(maps, their_maps, names, strict=True):
        assert_close(ours, theirs, layer)


@pytest.mark.parametrize("version", [1, 2])
def test_image_gradient_matches(float64, version):
    net, model, variables = small_pair(version)
    images, weights = to_float64(random_images(32)), logit_weights(model)
    theirs = jit(jax.grad(lambda images: jnp.sum(net(images) * weights)))(images)
    assert_close_in_norm(images_gradient(model, variables, images), theirs, "images")


@pytest.mark.parametrize("version", [1, 2])
def test_sgd_step_matches(float64, version):
    """Compare the change of all parameters and statistics, and the gradient of the images.

    Keras's batch norm computes in float32 even here: relative differences of 1e-5 were measured for
    small changes (of running statistics) and zero changes (of biases before a norm).
    """
    net, model, variables = small_pair(version)
    images, labels = to_float64(random_images(32, 8)), np.arange(8) % model.num_classes

    @jit
    def step(trainable, statistics, images):
        def loss(trainable, images):
            logits, updates = net.stateless_call(trainable, statistics, images, training=True)
            return cross_entropy(logits, labels), updates

        (gradient, images_grad), updates = jax.grad(loss, (0, 1), has_aux=True)(trainable, images)
        stepped = [p - LEARNING_RATE * g for p, g in zip(trainable, gradient, strict=True)]
        return stepped + updates, images_grad

    changing = [*net.trainable_variables, *net.non_trainable_variables]
    before = [np.asarray(variable.value) for variable in changing]
    trained = len(net.trainable_variables)
    after, their_gradient = step(before[:trained], before[trained:], images)
    keys = {id(variable): key for key, variable in keras_nets.named_variables(net).items()}
    theirs = {
        keys[id(variable)]: (old, new)
        for variable, old, new in zip(changing, before, after, strict=True)
    }
    ours, our_gradient = sgd_step(model, variables, images, labels)
    assert_close_in_norm(our_gradient, their_gradient, "images")
    for key, value in keras_nets.as_theirs(ours, keras_nets.RULES[version]).items():
        old, new = theirs[key]
        assert_close_in_norm(value - old, new - old, str(key), tolerance=1e-4)
