"""Layers and blocks of users as fields of ResNet."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import linen as nn

import flax_resnet
from flax_resnet import ResNet, ResNet18, create_model, fold_batch_norm, load_weights, save_weights
from flax_resnet.blocks import BottleneckBlock
from flax_resnet.layers import conv, gelu
from flax_resnet.norms import layer_norm
from flax_resnet.registry import ACTIVATIONS, BLOCKS, owned_by
from flax_resnet.runs import model_from_config
from flax_resnet.weights import WeightsError, read_weights
from tests.flax_resnet.own_blocks import SMALL, Doubling, Plain
from tests.flax_resnet.peers import assert_close, assert_same, peer, random_images, randomized


def stem(model, variables, images):
    return np.asarray(model.apply(variables, images, method="endpoints")["stem"])


def stem_conv(variables, images):
    """Return the stem's convolution by SciPy's definition: a sum over the kernel's taps."""
    kernel = variables["params"]["stem_conv"]["kernel"]
    size = images.shape[1]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = ((i, j) for i in range(3) for j in range(3))
    return sum(padded[:, i : i + size, j : j + size] @ kernel[i, j] for i, j in taps)


# The same norm by name, as a class and as a function.
LAYER_NORMS = {
    "name": "layer",
    "class": partial(nn.LayerNorm, epsilon=1e-5),
    "function": lambda name=None, scale_init=nn.initializers.ones: layer_norm(
        name=name, scale_init=scale_init
    ),
}


@pytest.mark.parametrize("norm", LAYER_NORMS.values(), ids=LAYER_NORMS)
def test_layer_norm_normalizes_the_channels_of_each_pixel(norm):
    model = ResNet(**SMALL | dict(norm=norm, activation=lambda x: x))
    variables, images = randomized(model, 8), random_images(8)
    assert "batch_stats" not in variables
    x = stem_conv(variables, images)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    leaves = variables["params"]["stem_norm"]
    assert_close(stem(model, variables, images), x * leaves["scale"] + leaves["bias"], "stem")


def test_batch_norm_of_flax_updates_statistics_as_ours():
    theirs = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
    ours, images = ResNet(**SMALL), random_images(8)
    variables = randomized(ours, 8)
    results = [
        model.apply(variables, images, train=True, mutable=["batch_stats"])
        for model in (ours, ours.clone(norm=theirs))
    ]
    jax.tree.map(lambda a, b: assert_close(a, b, "training"), *results)


def test_norms_get_the_axis_for_synchronized_statistics():
    model = ResNet(**SMALL, norm=nn.BatchNorm, axis_name="devices")
    variables, images = randomized(model.clone(axis_name=None), 8), random_images(8, batch=4)
    forward = partial(model.apply, train=True, mutable=["batch_stats"])
    split = images.reshape(2, 2, 8, 8, 3)
    _, parts = jax.vmap(partial(forward, variables), axis_name="devices")(split)
    _, whole = model.clone(axis_name=None).apply(
        variables, images, train=True, mutable=["batch_stats"]
    )
    jax.tree.map(lambda a, b: assert_close(a[0], b, "statistics"), parts, whole)


@pytest.mark.parametrize("name", ACTIVATIONS.reserved)
def test_activations_are_those_of_pytorch(name):
    torch = peer("torch")
    theirs = {
        "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
        "hard_silu": torch.nn.functional.hardswish,
    }
    x = np.linspace(-8, 8, 161, dtype=np.float32)
    expected = theirs.get(name, getattr(torch.nn.functional, name, None))(torch.from_numpy(x))
    np.testing.assert_allclose(ACTIVATIONS[name](x), expected, atol=5e-6)


@pytest.mark.parametrize("preactivation", [False, True])
def test_every_activation_of_a_network_is_the_chosen_one(preactivation):
    """A block of zeros is its shortcut, so the maps are known."""
    fields = dict(activation="silu", zero_init_last=True, preactivation=preactivation)
    model, images = ResNet(**SMALL | fields), random_images(8)
    variables = flax_resnet.init_variables(model, 0, (8, 8, 3))

    def norm_silu(x, norms=1):  # of the initial statistics, 0 and 1
        x = x / np.sqrt(1 + 1e-5) ** norms
        return x / (1 + np.exp(-x))

    first = norm_silu(stem_conv(variables, images))
    features = model.apply(variables, images, method="forward_features")
    # The pre-activation's shortcut and the final norm; the sum of the other block.
    assert_close(features, norm_silu(first, norms=int(preactivation)), "features")
    if not preactivation:
        assert_close(stem(model, variables, images), first, "stem")


def test_convolutions_of_a_class():
    images, own = random_images(8), partial(nn.Conv, padding="CIRCULAR")
    model = ResNet(**SMALL, conv=own)
    variables = randomized(model, 8)
    same = ResNet(**SMALL, conv=nn.Conv)
    assert_same(same.apply(variables, images), ResNet(**SMALL).apply(variables, images))
    shifted = model.apply(variables, np.roll(images, 3, axis=2), method="endpoints")["stage1"]
    original = model.apply(variables, images, method="endpoints")["stage1"]
    assert_close(shifted, np.roll(original, 3, axis=2), "shifted")  # no borders
    other = same.apply(variables, np.roll(images, 3, axis=2), method="endpoints")["stage1"]
    assert abs(other - shifted).max() > 0.1


def test_depthwise_convolution_filters_each_channel():
    x, layer = random_images(8), conv(3, 5, groups=3)
    variables = layer.init(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (5, 5, 1, 3)
    one = conv(1, 5)
    for channel in range(3):
        part = {"params": {"kernel": kernel[..., channel : channel + 1]}}
        expected = one.apply(part, x[..., channel : channel + 1])[..., 0]
        assert_close(layer.apply(variables, x)[..., channel], expected, channel)


def test_zero_init_needs_a_scale():
    class Unscaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x

    model = ResNet(**SMALL, norm=Unscaled, zero_init_last=True)
    with pytest.raises(ValueError, match=r"zero_init_last needs .* Unscaled lacks"):
        jax.eval_shape(model.init, jax.random.key(0), random_images(8))


def test_the_projects_parts_and_their_names_are_the_same():
    by_name = create_model("resnet50", activation="gelu", norm="layer")
    by_part = create_model("resnet50", block=BottleneckBlock, activation=gelu, norm=layer_norm)
    assert by_part == by_name and by_part.block == "bottleneck"
    # With backend-specific gradients, and the default of nn.gelu, which is not that of PyTorch.
    assert ResNet18(activation=nn.relu).activation == "relu"
    assert ResNet18(activation=nn.gelu).activation == "gelu_tanh"


def test_a_block_must_have_the_shape_that_its_fields_say():
    class Wide(Doubling):
        expansion = 1

    model = ResNet(**SMALL | dict(block=Wide, shortcut="none"))
    with pytest.raises(
        ValueError, match=r"Wide \(stage1_block1\) with .* returned .*\(2, 8, 8, 16\), not .*8\)"
    ):
        jax.eval_shape(model.init, jax.random.key(0), random_images(8))


def test_a_later_registration_does_not_change_a_network():
    def other_block():
        class Other(Doubling):
            expansion = 4

        return Other

    BLOCKS.register("mine", Doubling)
    models = [
        create_model("resnet20", block="mine"),
        ResNet((1,), block="mine"),
        model_from_config({"model.name": "resnet20", "model.block": "mine"}, 10),
    ]
    with owned_by("another recipe"):
        BLOCKS.register("mine", other_block())
    for model in models:
        assert model.block is Doubling
        assert model.feature_info["stage1"].channels == 2 * model.width
        assert model.clone(num_classes=3).block is Doubling
    assert create_model("resnet20", block="mine").feature_info["stage1"].channels == 64


def test_batch_norm_is_folded_in_a_block_of_convolutions():
    model = ResNet(**SMALL | dict(stage_sizes=(1, 1), block=Doubling))
    variables, images = randomized(model, 8), random_images(8)
    folded, weights = fold_batch_norm(model, variables)
    assert_close(folded.apply(weights, images), model.apply(variables, images), "logits")
    assert set(weights["params"]["stage2_block1"]) == {"conv1", "shortcut"}


def test_batch_norm_after_an_own_convolution_becomes_a_scale_and_shift():
    model = ResNet(**SMALL, conv=nn.Conv)
    variables, images = randomized(model, 8), random_images(8)
    folded, weights = fold_batch_norm(model, variables)
    assert_close(folded.apply(weights, images), model.apply(variables, images), "logits")
    assert set(weights) == {"params"} and "stem_norm" in weights["params"]


def test_foreign_batch_norm_is_not_folded():
    model = ResNet(**SMALL | dict(block=Plain))
    with pytest.raises(ValueError, match=r"stage1_block1/BatchNorm_0 is not made by the block's"):
        fold_batch_norm(model, randomized(model, 8))


def test_weights_of_own_layers(tmp_path, caplog):
    path = tmp_path / "w.safetensors"
    model = ResNet(**SMALL | dict(block=Plain))
    variables = randomized(model, 8)
    with pytest.raises(WeightsError, match="torchvision layout has no name for stage1_block1"):
        save_weights(model, variables, path)
    save_weights(model, variables, path, layout="flax")
    assert_same(load_weights(model, path), variables)
    same_names = ResNet(**SMALL | dict(activation="gelu"))
    save_weights(same_names, randomized(same_names, 8), path)
    assert "no network of torchvision has stem='cifar', activation='gelu'" in caplog.text
    report = str(read_weights(ResNet(**SMALL), path)[1])
    assert "a network with activation='gelu', this one has 'relu'" in report
