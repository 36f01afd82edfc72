"""Layers, blocks and networks of users as fields of ResNet."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import flax_resnet
from flax_resnet import ResNet, ResNet18, create_model, fold_batch_norm, load_weights, save_weights
from flax_resnet import registry as registries
from flax_resnet.blocks import Block, BottleneckBlock
from flax_resnet.layers import conv, gelu, layer_norm
from flax_resnet.own_networks import FIELDS, check_network
from flax_resnet.registry import ACTIVATIONS, BLOCKS, MODELS, NORMS, owned_by
from flax_resnet.runs import model_from_config
from flax_resnet.weights import WeightsError, read_weights
from tests.conftest import ROOT
from tests.flax_resnet.peers import assert_close, assert_same, peer, random_images, randomized

SMALL = dict(stage_sizes=(1,), block="residual", width=8, stem="cifar", num_classes=4)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Forget whatever a test registers."""
    for registry in (BLOCKS, NORMS, ACTIVATIONS, MODELS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


class Doubling(Block):
    """A block that doubles the channels by one convolution."""

    expansion = 2

    def convolutions(self):
        return [dict(features=2 * self.width, kernel=3, stride=self.stride)]


class Plain(nn.Module):
    """A block without Block's fields."""

    width: int
    stride: int = 1
    expansion = 1

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.Conv(self.width, (3, 3), self.stride, padding=1)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(y))


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


def test_own_networks_are_known_by_name():
    @flax_resnet.register_model("tiny")
    def tiny(num_classes, dtype=jnp.float32, depth=1):
        return ResNet((depth,), width=32, norm="group", dropout=0.5, num_classes=num_classes)

    assert "tiny" in flax_resnet.list_models()
    assert flax_resnet.feature_info("tiny", num_classes=2)["stage1"].channels == 128
    assert create_model("tiny", num_classes=2, depth=3).stage_sizes == (3,)
    keys = {"model.zero_init_last": False, "model.dropout": 0.0, "model.stage_sizes": ()}
    model = model_from_config({"model.name": "tiny"} | keys, 7)
    assert (model.num_classes, model.dropout) == (7, 0.5)
    with pytest.raises(ValueError, match="'tiny' has no field 'drop_path'; valid are num_classes"):
        model_from_config({"model.name": "tiny", "model.drop_path": 0.1}, 7)
    with pytest.raises(ValueError, match=r"'tiny' cannot be made: .* 'num_classes'"):
        create_model("tiny")
    flax_resnet.register_model("wrong", lambda **fields: 5)
    with pytest.raises(ValueError, match="'wrong' must be a function that returns a module: 5"):
        create_model("wrong", num_classes=2)


def test_aliases_are_the_named_networks():
    for depth in (18, 34, 50, 101, 152):
        alias = getattr(flax_resnet, f"ResNet{depth}")
        assert alias(num_classes=3) == create_model(f"resnet{depth}", num_classes=3)


class NoExpansion(nn.Module):
    width: int
    stride: int


class NoTrain(Block):
    @nn.compact
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(norm=nn.LayerNorm()), "norm must be a module class or a function .* not LayerNorm"),
        (dict(norm=None), "norm must be a module class or a function that .* not None"),
        (dict(conv="3x3"), "conv must be a module class or a function .* not '3x3'"),
        (dict(activation=nn.PReLU), "activation must be a name or a function of an array"),
        (dict(activation="rely"), "unknown activation 'rely'; valid are relu, relu6"),
        (dict(conv=nn.Conv, weight_standardization=True), "weight_standardization=True needs"),
        (dict(block=5), "block must be a name or a class of modules, not int"),
        (dict(block=nn.Dense), "Dense has no field width and no field stride; a subclass of"),
        (dict(block=NoExpansion), "NoExpansion needs a class attribute expansion"),
        (dict(block=Plain, groups=2), "Plain has no field groups, so groups=2 would have no"),
        (dict(block=Plain, drop_path=0.1), "Plain has no field drop_path, so drop_path=0.1"),
        (dict(block=type("Empty", (Block,), {})), "Empty defines no layers; define convolutions"),
        (
            dict(block=NoTrain),
            r"NoTrain must be called by __call__\(self, x, train=False\), not by",
        ),
        (dict(block="mine"), "unknown block 'mine'; valid are residual, bottleneck"),
    ],
)
def test_errors_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**SMALL | fields)


def block_of(function, **attributes):
    """Return a class of blocks that compute ``function(block, x, train)``."""

    class Own(Block):
        @nn.compact
        def __call__(self, x, train=False):
            return function(self, x, train)

    for name, value in attributes.items():
        setattr(Own, name, value)
    return Own


class Pooling(nn.Module):
    def __call__(self, x):
        return x.mean((1, 2))


def conv_and_shortcut(block, x, train, **fields):
    return block.add_shortcut(block.conv(block.width, 3, **fields)(x), x, train)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(activation=lambda x: None), "activation <lambda> returned None for a map"),
        (dict(activation=lambda x: x[..., :2]), r"returned an array of shape \(2, 8, 8, 2\) for"),
        (
            dict(norm=lambda x: x),
            r"norm <lambda>\(x\) must be .*: missing a required argument: 'x'",
        ),
        (dict(norm=lambda name=None: 5), "norm <lambda> must return a module, not 5"),
        (dict(norm=Pooling), r"norm .*\(stem_norm\) returned \(2, 8\) for a map .*\(2, 8, 8, 8\)"),
        (
            dict(norm=partial(nn.GroupNorm, num_groups=3)),
            r"\(stem_norm\) fails: .*groups \(3\) does",
        ),
        (dict(block=block_of(lambda *_: None)), r"Own \(stage1_block1\) .* returned None, not"),
        (
            dict(block=block_of(lambda block, x, train: block.add_shortcut(None, x, train))),
            r"Own \(stage1_block1\) .* adds None to its shortcut of \(2, 8, 8, 8\)",
        ),
        (
            dict(block=block_of(conv_and_shortcut), stage_sizes=(1, 1)),
            r"Own \(stage2_block1\) with stride=2, .* adds a map of shape \(2, 8, 8, 16\) to its"
            r" shortcut of \(2, 4, 4, 16\)",
        ),
        (
            dict(block=block_of(conv_and_shortcut, expansion=4)),
            r"expansion=4 adds a map of shape \(2, 8, 8, 8\) to its shortcut of \(2, 8, 8, 32\)",
        ),
        (
            dict(block=block_of(partial(conv_and_shortcut, groups=3))),
            r"Own \(stage1_block1\) fails: .*groups=3 must divide the 8 channels .*line \d+\)",
        ),
        (
            dict(block=block_of(partial(conv_and_shortcut, groups=4)), stem_width=6),
            r"Conv \(stage1_block1/Conv_0, in Own\) fails: groups=4 must divide its 6 input",
        ),
        (
            dict(block=block_of(lambda block, x, train: 1 / 0)),
            r"Own \(stage1_block1\) fails: ZeroDivisionError: .* \(test_own_layers.py, line \d+\)",
        ),
    ],
)
def test_an_own_part_that_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        check_network(ResNet(**SMALL | fields), "resnet20", (8, 8, 3), 4)


class Linear(nn.Module):
    num_classes: int
    dtype: jnp.dtype = jnp.float32
    frozen: tuple[str, ...] = ()
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes, name="head")(images.mean((1, 2)))


def test_a_network_needs_only_the_fields_of_the_page():
    page = (ROOT / "docs/own-networks.md").read_text()
    assert all(f"`{field}`" in page for field in FIELDS)
    model = Linear(4)
    check_network(model, "linear", (8, 8, 3), 4)
    [row] = flax_resnet.summarize(model, 8).rows
    assert (row.output, row.parameters, row.multiply_adds) == ((4,), 16, 12)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Dense(4), "'own', Dense, lacks the fields num_classes, frozen, axis_name; a run needs"),
        (ResNet(**SMALL | dict(num_classes=3)), "has 3 outputs .*, and the run needs 4"),
        (ResNet(**SMALL | dict(num_classes=5)), "has 5 outputs .*, and the run needs 4"),
        (
            type("Map", (Linear,), {"__call__": lambda self, x, train=False: x})(4),
            r"\(2, 8, 8, 3\)",
        ),
    ],
)
def test_a_network_has_the_outputs_that_the_run_needs(model, message):
    MODELS.register("own", lambda **fields: model)
    with pytest.raises(ValueError, match=message):
        check_network(model, "own", (8, 8, 3), 4)


def test_own_parts_are_those_with_an_owner():
    assert registries.SESSION == "session" and BLOCKS.owner("residual") is None
    NORMS.register("mine", nn.LayerNorm)
    assert create_model("resnet18", norm="mine").norm is nn.LayerNorm
    assert NORMS.owner("mine") == registries.SESSION
