"""Which library an exported network is loaded with, and the files beside the weights."""

from types import SimpleNamespace

import pytest

from flax_resnet import create_model
from flax_resnet.preprocessing import Preprocessing
from train.export import loaders
from train.export.formats import matches_transformers, transformers_config

SINGLE = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
WIDER = ("resnext50_32x4d", "wide_resnet50_2")


def make_run(name, **fields):
    model = create_model(name, **fields)
    return SimpleNamespace(
        preprocessing=Preprocessing(256, 224, "bilinear", (0.5,) * 3, (0.5,) * 3),
        model=model,
        config={"model.name": name},
        class_name=lambda index: f"class {index}",
    )


@pytest.mark.parametrize(
    "name",
    [
        *(*SINGLE, *WIDER, "resnet50_v1", "seresnet50", "resnet50d", "resnetrs50", "resnet50_gn"),
        *("resnet50v2", "resnetv2_50x1_bit", "resnet20", "wrn40_2", "plain34"),
    ],
)
def test_libraries_load_the_networks_that_they_have(name):
    run = make_run(name)
    libraries = {
        format: loaders.loader_for_format(run, format).library
        for format in ("torchvision", "timm", "huggingface", "stablehlo")
    }
    has = {
        "torchvision": name in SINGLE + WIDER,
        "timm": name in (*SINGLE, *WIDER, "seresnet50", "resnet50d", "resnet50_gn"),
        # Its epsilon cannot be set: those of Keras's networks differ.
        "huggingface": name in SINGLE or (name == "resnet50_v1" and run.model.norm_epsilon == 1e-5),
        "stablehlo": True,
    }
    own = {"huggingface": "transformers", "stablehlo": "jax and flatbuffers"}
    assert libraries == {
        format: own.get(format, format) if has[format] else "flax_resnet" for format in libraries
    }


@pytest.mark.parametrize(
    "fields",
    [
        *({"stem_width": 32}, {"stem": "cifar"}, {"shortcut": "zero_pad"}, {"output_stride": 8}),
        *({"stride_block": "last"}, {"norm_epsilon": 1e-3}, {"conv_bias": "all"}, {"groups": 2}),
        *({"weight_standardization": True}, {"se_ratio": 0.25}, {"width_multiplier": 2}),
        *({"preactivation": True}, {"norm": "group"}),
    ],
)
def test_changed_networks_are_loaded_with_flax_resnet(fields):
    run = make_run("resnet50", **fields)
    assert not matches_transformers(run.model)
    assert loaders.changed_fields(run.model, "resnet50") == fields
    for format in ("torchvision", "timm", "huggingface"):
        loader = loaders.loader_for_format(run, format)
        assert loader.library == "flax_resnet" and "does not have this network" in loader.note


def test_fields_that_matter_only_in_training_change_nothing():
    fields = dict(num_classes=3, drop_path=0.1, dropout=0.2, norm_momentum=0.8, axis_name="batch")
    run = make_run("resnet50", zero_init_last=True, frozen=("head",), **fields)
    assert loaders.loader_for_format(run, "torchvision").library == "torchvision"


def test_config_of_transformers_describes_the_network():
    config = transformers_config(make_run("resnet50", num_classes=2))
    assert config == {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "num_channels": 3,
        "id2label": {0: "class 0", 1: "class 1"},
        "label2id": {"class 0": 0, "class 1": 1},
    }
    config = transformers_config(make_run("resnet18", stride_conv="1x1", width=32))
    assert (config["embedding_size"], config["hidden_sizes"]) == (32, [32, 64, 128, 256])
    assert (config["layer_type"], config["downsample_in_bottleneck"]) == ("basic", True)
