"""Test that weights of PyTorch networks load and save with the same logits."""

import functools
import importlib
import json

import jax
import numpy as np
import pytest

from flax_resnet import ResNet, create_model, init_variables, load_weights, save_weights
from flax_resnet.weights import read_weights
from tests.flax_resnet.peers import assert_close, assert_same, peer, random_images, randomized
from tests.flax_resnet.torch_nets import evaluated, hugging_face_net, randomize, torch_net

pytestmark = pytest.mark.peer


def logits_of(model, variables, images):
    return jax.jit(model.apply)(variables, images)


def check_round_trip(make, model, layout, path):
    """Load a PyTorch network's file, save it again, and compare logits at both ends."""
    safetensors = peer("safetensors.torch")
    net, images = randomize(make()), random_images()
    safetensors.save_file(net.state_dict(), path)
    variables, report = read_weights(model, path)
    assert report.complete, report
    expected = evaluated(net, images)
    assert_close(logits_of(model, variables, images), expected, "logits")

    save_weights(model, variables, path, layout=layout)
    again = make().eval()
    again.load_state_dict(safetensors.load_file(path), strict=True)
    np.testing.assert_array_equal(evaluated(again, images), expected)
    return net, variables, report


def test_torchvision_and_timm_round_trip_gives_the_same_logits(tmp_path):
    torch, safetensors = peer("torch"), peer("safetensors.torch")
    make = functools.partial(torch_net, name="resnet18", num_classes=11)
    net, images = randomize(make("torchvision")), random_images()
    torch.save(net.state_dict(), tmp_path / "in.pth")
    safetensors.save_file(net.state_dict(), tmp_path / "in.safetensors")
    variables, report = read_weights("resnet18", tmp_path / "in.pth")
    assert report.complete, report
    expected = evaluated(net, images)
    ours = logits_of(create_model("resnet18", num_classes=11), variables, images)
    assert_close(ours, expected, "logits")
    assert_same(variables, load_weights("resnet18", tmp_path / "in.safetensors"))

    for library in ("torchvision", "timm"):
        save_weights("resnet18", variables, tmp_path / "out.safetensors", layout=library)
        again = make(library).eval()
        again.load_state_dict(safetensors.load_file(tmp_path / "out.safetensors"), strict=True)
        assert_close(evaluated(again, images), expected, library)


PUBLISHED = [
    ("torchvision", "resnet50"),
    ("torchvision", "resnext50_32x4d"),
    ("timm", "seresnet50"),
    ("timm", "resnet50d"),
    ("timm", "resnetrs50"),
    ("timm", "resnetv2_50x1_bit"),
]


@pytest.mark.parametrize(("library", "name"), PUBLISHED)
def test_published_models_have_the_same_names_and_shapes(library, name, tmp_path):
    torch, safetensors = peer("torch"), peer("safetensors")
    with torch.device("meta"):
        state = torch_net(library, name, num_classes=1000).state_dict()
    variables = init_variables(create_model(name), 0, (64, 64, 3))
    path = tmp_path / "w.safetensors"
    save_weights(name, variables, path, layout=library)
    with safetensors.safe_open(path, "np") as file:
        shapes = {tensor: tuple(file.get_slice(tensor).get_shape()) for tensor in file.keys()}
    assert shapes == {tensor: tuple(value.shape) for tensor, value in state.items()}
    again, report = read_weights(name, path)
    assert report.complete and report.layout in (library, "torchvision"), report
    assert_same(again, variables)


VARIANTS = {
    "groups and squeeze-excitation": (
        dict(cardinality=4, base_width=32, block_args=dict(attn_layer="se")),
        dict(groups=4, width_multiplier=2, se_ratio=1 / 16, stem_width=64),
    ),
    "d": (
        dict(stem_type="deep", stem_width=16, avg_down=True),
        dict(stem="deep", shortcut="average_pool"),
    ),
}


@pytest.mark.parametrize(("theirs", "fields"), VARIANTS.values(), ids=VARIANTS)
def test_timm_variants_give_the_same_logits(theirs, fields, tmp_path):
    peer("timm")
    resnet = importlib.import_module("timm.models.resnet")

    def make():
        channels = (32, 64, 128, 256)
        return resnet.ResNet(resnet.Bottleneck, (1, 1, 1, 1), 7, channels=channels, **theirs)

    model = ResNet((1, 1, 1, 1), width=32, num_classes=7, **fields)
    check_round_trip(make, model, "timm", tmp_path / "w.safetensors")


def test_big_transfer_round_trip_through_timm_and_hugging_face(tmp_path):
    transformers, _ = peer("transformers"), peer("timm")
    timm = importlib.import_module("timm.models.resnetv2")
    model = create_model("resnetv2_50x1_bit", stage_sizes=(1, 2), width=32, num_classes=7)
    config = transformers.BitConfig(
        embedding_size=32, hidden_sizes=[128, 256], depths=[1, 2], num_labels=7
    )
    conv = importlib.import_module("timm.layers").StdConv2d
    nets = {
        "timm": lambda: timm.ResNetV2(
            (1, 2), (128, 256), num_classes=7, stem_chs=32, stem_type="fixed", conv_layer=conv
        ),
        "huggingface": lambda: transformers.BitForImageClassification(config),
    }
    for layout, make in nets.items():
        *_, report = check_round_trip(make, model, layout, tmp_path / "w.safetensors")
        assert report.layout == layout


@pytest.mark.parametrize("block", ["residual", "bottleneck"])
def test_hugging_face_round_trip_gives_the_same_logits(block, tmp_path):
    model = ResNet((1, 2), block=block, width=8, num_classes=11)
    make = functools.partial(hugging_face_net, model)
    net, variables, _ = check_round_trip(make, model, "huggingface", tmp_path / "w.safetensors")

    net.save_pretrained(tmp_path / "whole")
    net.resnet.save_pretrained(tmp_path / "backbone")
    assert_same(load_weights(model, tmp_path / "whole"), variables)
    backbone, report = read_weights(model, tmp_path / "backbone")
    assert report.missing == ("params/head/bias", "params/head/kernel")
    assert_same(backbone["batch_stats"], variables["batch_stats"])


def test_saved_files_have_torch_tensors_and_metadata(tmp_path):
    numpy_side = peer("safetensors.numpy")
    safetensors = peer("safetensors")
    model = create_model("resnet20")
    variables = randomized(model)
    save_weights("resnet20", variables, tmp_path / "w.safetensors")
    tensors = numpy_side.load_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(tensors["fc.weight"].T, variables["params"]["head"]["kernel"])
    assert tensors["bn1.num_batches_tracked"].dtype == np.int64
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata.pop("fields"))["shortcut"] == "zero_pad"
    assert metadata == {"format": "pt", "layout": "torchvision", "model": "resnet20"}
