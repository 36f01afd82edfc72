"""Networks of users by name, and the checks of their parts."""

from functools import partial

import jax.numpy as jnp
import pytest
from flax import linen as nn

import flax_resnet
from flax_resnet import ResNet, create_model
from flax_resnet import registry as registries
from flax_resnet.blocks import Block
from flax_resnet.own_networks import FIELDS, check_network
from flax_resnet.registry import BLOCKS, MODELS, NORMS
from flax_resnet.runs import model_from_config
from tests.conftest import ROOT
from tests.flax_resnet.own_blocks import SMALL, Plain


def test_own_networks_are_known_by_name():
    @flax_resnet.register_model("tiny")
    def tiny(num_classes, dtype=jnp.float32, depth=1):
        return ResNet((depth,), width=32, norm="group", dropout=0.5, num_classes=num_classes)

    assert "tiny" in flax_resnet.list_models()
    assert flax_resnet.feature_info("tiny", num_classes=2)["stage1"].channels == 128
    assert create_model("tiny", num_classes=2, depth=3).stage_sizes == (3,)
    keys = {"model.zero_init_last": False, "model.dropout": -1.0, "model.stage_sizes": ()}
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
            r"Own \(stage1_block1\) fails: ZeroDivisionError: .*"
            r" \(test_own_networks.py, line \d+\)",
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
