"""Our networks against timm's: the same results from the same weights."""

import functools
import importlib

import pytest

from flax_resnet import create_model
from tests.flax_resnet.peers import one_less, peer
from tests.flax_resnet.torch_nets import (
    check_evaluation,
    check_images_gradient,
    check_sgd_step,
    torch_net,
)

pytestmark = pytest.mark.peer

RULES = [
    (r"^stem_conv$", "conv1"),
    (r"^stem_norm$|^stem_norm3$", "bn1"),
    (r"^stem_conv([123])$", lambda match: f"conv1.{3 * int(match[1]) - 3}"),
    (r"^stem_norm([12])$", lambda match: f"conv1.{3 * int(match[1]) - 2}"),
    (r"^stem_conv4$", "maxpool.0"),
    (r"^stem_norm4$", "maxpool.1"),
    (r"^head$", "fc"),
    (r"stage(\d)_block(\d+)/", one_less(r"layer\1.<2>.")),
    (r"shortcut/conv", "downsample.0"),
    (r"shortcut/norm", "downsample.1"),
    (r"\.norm(\d)$", r".bn\1"),
    (r"se/reduce", "se.fc1"),
    (r"se/expand", "se.fc2"),
    (r"eca/conv", "se.conv"),
]
# These shortcuts begin with an average pool.
RULES_D = [(r"shortcut/conv", "downsample.1"), (r"shortcut/norm", "downsample.2"), *RULES]
ENDPOINTS = ["maxpool", "layer1", "layer2", "layer3", "layer4"]

RULES_BIT = [
    (r"stem_conv", "stem.conv"),
    (r"^final_norm$", "norm"),
    (r"^head$", "head.fc"),
    (r"stage(\d)_block(\d+)/", one_less("stages.<1>.blocks.<2>.")),
    (r"shortcut/conv", "downsample.conv"),
]
ENDPOINTS_BIT = ["stem", *(f"stages.{i}" for i in range(4))]


def name_rules(name):
    return RULES_D if name in ("resnet50d", "resnetrs50") else RULES


def small_bit():
    """Return small versions of resnetv2_50x1_bit, timm's and ours."""
    peer("timm")
    layers, resnetv2 = map(importlib.import_module, ("timm.layers", "timm.models.resnetv2"))
    net = resnetv2.ResNetV2(
        layers=(1, 2),
        channels=(128, 256),
        num_classes=4,
        stem_chs=32,
        stem_type="fixed",
        # As in the published networks; the default 1e-6 changes gradients measurably.
        conv_layer=functools.partial(layers.StdConv2d, eps=1e-8),
    )
    return net, create_model("resnetv2_50x1_bit", stage_sizes=(1, 2), width=32, num_classes=4)


NAMES = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "seresnet50",
    "resnet50_gn",
    "resnet50d",
    "resnetrs50",
]


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_matches(name):
    """With at most two blocks per stage; other libraries' networks cover the full depth."""
    net = torch_net("timm", name, layers=(1, 2, 1, 1))
    model = create_model(name, stage_sizes=(1, 2, 1, 1))
    check_evaluation(net, model, name_rules(name), ENDPOINTS)


def test_big_transfer_evaluation_matches():
    name = "resnetv2_50x1_bit"
    net = torch_net("timm", name, num_classes=1000)
    check_evaluation(net, create_model(name), RULES_BIT, ENDPOINTS_BIT)


@pytest.mark.parametrize(
    ("name", "output_stride"),
    # timm does not dilate the filters of further strides, so differs at smaller output strides.
    [("resnet18", 8), ("resnet50", 8), ("resnet50", 16), ("resnetblur18", 16)],
)
def test_dilation_matches(name, output_stride):
    depth = (1, 1, 2, 2)
    net = torch_net("timm", name, layers=depth, output_stride=output_stride)
    model = create_model(name, stage_sizes=depth, output_stride=output_stride)
    _, *theirs = (
        net.feature_info
    )  # the first is before the max-pool, the others are after each stage
    _, *ours = model.feature_info.values()
    assert ours == [(info["reduction"], info["num_chs"]) for info in theirs]
    check_evaluation(net, model, RULES, ENDPOINTS)


def test_sgd_step_matches():
    """With groups, squeeze-and-excitation, a deep stem and average-pooling shortcuts."""
    depth, width = (1,) * 4, 16
    channels = tuple(width * 2**i for i in range(4))
    groups = dict(cardinality=4, base_width=32)
    net = torch_net("timm", "resnetrs50", layers=depth, channels=channels, num_classes=4, **groups)
    fields = dict(stage_sizes=depth, width=width, stem_width=64, num_classes=4)
    model = create_model("resnetrs50", groups=4, width_multiplier=2, **fields)
    check_sgd_step(net, model, RULES_D, size=64)


def test_sgd_step_matches_with_blurred_strides_and_efficient_channel_attention():
    depth, width = (1, 1, 1, 1), 16
    channels = tuple(width * 2**i for i in range(4))
    attention = dict(block_args=dict(attn_layer="eca"))
    net = torch_net(
        "timm", "resnetblur18", layers=depth, channels=channels, num_classes=4, **attention
    )
    fields = dict(stage_sizes=depth, width=width, stem_width=64, num_classes=4, eca=True)
    check_sgd_step(net, create_model("resnetblur18", **fields), RULES, size=64)


def test_sgd_step_matches_with_weight_standardization():
    check_sgd_step(*small_bit(), RULES_BIT)


def test_image_gradient_matches():
    check_images_gradient(*small_bit(), RULES_BIT, size=32)
