"""Our networks against Hugging Face's: the same results from the same weights."""

import pytest

from flax_resnet import ResNet, create_model, summarize
from tests.flax_resnet.peers import one_less, peer
from tests.flax_resnet.torch_nets import (
    check_evaluation,
    check_images_gradient,
    check_sgd_step,
    hugging_face_net,
)

pytestmark = pytest.mark.peer

RULES = [
    (r"stem_conv", "resnet.embedder.embedder.convolution"),
    (r"stem_norm", "resnet.embedder.embedder.normalization"),
    (r"^head$", "classifier.1"),
    (r"stage(\d)_block(\d+)/", one_less("resnet.encoder.stages.<1>.layers.<2>.")),
    (r"shortcut/conv", "shortcut.convolution"),
    (r"shortcut/norm", "shortcut.normalization"),
    (r"\.conv(\d)$", one_less(".layer.<1>.convolution")),
    (r"\.norm(\d)$", one_less(".layer.<1>.normalization")),
]
ENDPOINTS = ["resnet.embedder", *(f"resnet.encoder.stages.{i}" for i in range(4))]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1"])
def test_evaluation_matches(name):
    model = create_model(name, norm_epsilon=1e-5)
    check_evaluation(hugging_face_net(model), model, RULES, ENDPOINTS)


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet50_v1"])
def test_multiply_adds_match_pytorch(name):
    torch = peer("torch")
    from torch.utils.flop_counter import FlopCounterMode

    model = create_model(name)
    net = hugging_face_net(model).to("meta")
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros((1, 3, 224, 224), device="meta"))
    assert 2 * summarize(model, 224).multiply_adds == counter.get_total_flops()


@pytest.mark.parametrize(("block", "stride_conv"), [("residual", "3x3"), ("bottleneck", "1x1")])
def test_sgd_step_matches(block, stride_conv):
    """The bottleneck with the stride in the 3×3 is compared with timm's."""
    model = ResNet((2, 1), block=block, width=8, stride_conv=stride_conv, num_classes=4)
    check_sgd_step(hugging_face_net(model), model, RULES)


def test_image_gradient_matches():
    model = ResNet((1, 2), width=8, num_classes=4)
    check_images_gradient(hugging_face_net(model), model, RULES, size=32)
