"""Keras's networks: name rules, small networks of the same blocks, and loading of our weights."""

import importlib
from unittest import mock

import numpy as np

from flax_resnet import create_model
from tests.flax_resnet.peers import one_less, peer, translate

_COMMON = [
    (r"^stem_conv$", "conv1_conv"),
    (r"^stem_norm$", "conv1_bn"),
    (r"^final_norm$", "post_bn"),
    (r"^head$", "predictions"),
    (r"stage(\d)_block(\d+)/", lambda match: f"conv{int(match[1]) + 1}_block{match[2]}_"),
    (r"shortcut/(conv|norm)", r"0_\1"),
    (r"_conv(\d)$", r"_\1_conv"),
    (r"_norm(\d)$", r"_\1_norm"),
]
RULES = {
    1: [*_COMMON, (r"_norm$", "_bn")],
    # Our norms are numbered after the convolution that follows them.
    2: [*_COMMON, (r"_1_norm$", "_preact_bn"), (r"_(\d)_norm$", one_less("_<1>_bn"))],
}
NAMES = {1: "resnet50_v1", 2: "resnet50v2"}


def keras_and_ours(name):
    """Return Keras's network with zero weights, ours with its redundant biases, and name rules."""
    keras = peer("keras")

    # Initializing random weights that are never used would dominate the test time.
    def zeros(self, shape, dtype=None):
        return np.zeros(shape, dtype or "float32")

    with mock.patch.object(keras.initializers.VarianceScaling, "__call__", zeros):
        net = getattr(keras.applications, name)(
            weights=None, input_shape=(64, 64, 3), classifier_activation=None
        )
    if name.endswith("V2"):
        return net, create_model(name.lower()), RULES[2]
    return net, create_model(f"{name.lower()}_v1", conv_bias="all"), RULES[1]


def small_net(version, stage_sizes=(2, 2), width=32, size=64, classes=5):
    """Return a small network of Keras's own blocks."""
    peer("keras")
    resnet = importlib.import_module("keras.src.applications.resnet")
    stack = getattr(resnet, f"stack_residual_blocks_v{version}")
    unstrided = 0 if version == 1 else len(stage_sizes) - 1  # the stage without a stride

    def stages(x):
        for i, blocks in enumerate(stage_sizes):
            stride = 1 if i == unstrided else 2
            x = stack(x, width * 2**i, blocks, stride1=stride, name=f"conv{i + 2}")
        return x

    return resnet.ResNet(
        stages,
        preact=version == 2,
        use_bias=True,
        weights=None,
        weights_name="small",
        input_shape=(size, size, 3),
        classes=classes,
        classifier_activation=None,
    )


def small_model(version, stage_sizes=(2, 2), width=32, classes=5, **fields):
    """Return our network with the same architecture."""
    fields = dict(width=width, stem_width=64, num_classes=classes) | fields
    return create_model(NAMES[version], stage_sizes=stage_sizes, **fields)


def named_variables(net):
    """Return ``{(layer name, our leaf name): Keras variable}``."""
    names = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
    return {
        (layer.name, names.get(variable.name, variable.name)): variable
        for layer in net.layers
        for variable in layer.weights
    }


def as_theirs(variables, rules):
    """Return our variables under the keys of :func:`named_variables`."""
    return {
        (module, leaf): value
        for module, leaves in translate(variables, rules).items()
        for leaf, value in leaves.items()
    }


def load(net, variables, rules):
    ours, theirs = as_theirs(variables, rules), named_variables(net)
    assert set(ours) == set(theirs)
    for key, variable in theirs.items():
        variable.assign(ours[key])
