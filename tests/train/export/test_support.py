"""Which libraries have a network and its preprocessing, and the configuration of transformers."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
from flax import linen as nn

from flax_resnet import create_model, list_models
from flax_resnet.preprocessing import Preprocessing
from flax_resnet.variants import TIMM_NAMES
from tests.flax_resnet.peers import peer
from train.export.support import changed_fields, check_network, missing_in
from train.export.timm_files import crop_fraction
from train.export.transformers_files import network_config
from train.runtime.errors import UsageError

SINGLE = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
WIDER = ("resnext50_32x4d", "wide_resnet50_2")
TIMM = ("seresnet50", "resnet50d", "resnetrs50", "resnet50_gn", "resnetv2_50x1_bit")


def make_run(name, **fields):
    model = create_model(name, **fields)
    return SimpleNamespace(
        preprocessing=Preprocessing(256, 224, "bilinear", (0.5,) * 3, (0.5,) * 3),
        model=model,
        config={"model.name": name},
        class_name=lambda index: f"class {index}",
        activation="softmax",
        kind=None,
    )


@pytest.mark.parametrize(
    "name",
    [
        *(*SINGLE, *WIDER, "resnet50_v1", "seresnet50", "resnet50d", "resnetrs50", "resnet50_gn"),
        *("resnet50v2", "resnetv2_50x1_bit", "resnet20", "wrn40_2", "plain34"),
    ],
)
def test_libraries_have_networks(name):
    run = make_run(name)
    has = {
        "torchvision": name in SINGLE + WIDER,
        "timm": name in (*SINGLE, *WIDER, *TIMM),
        # Its epsilon cannot be set: those of Keras's networks differ.
        "huggingface": name in (*SINGLE, "resnetv2_50x1_bit"),
        "stablehlo": True,
    }
    assert {format: not missing_in(run, format) for format in has} == has


@pytest.mark.peer
def test_timm_has_the_networks_that_are_exported_for_it():
    timm = peer("timm")
    names = {name for part in ("resnet", "resnetv2") for name in timm.list_models(module=part)}
    assert TIMM_NAMES == names & set(list_models())


@pytest.mark.parametrize(
    "fields",
    [
        *({"stem_width": 32}, {"stem": "cifar"}, {"shortcut": "zero_pad"}, {"output_stride": 8}),
        *({"stride_block": "last"}, {"norm_epsilon": 1e-3}, {"conv_bias": "all"}, {"groups": 2}),
        *({"weight_standardization": True}, {"se_ratio": 0.25}, {"width_multiplier": 2}),
        *({"preactivation": True}, {"norm": "group"}),
    ],
)
def test_changed_networks_are_refused_with_their_fields(fields):
    run = make_run("resnet50", **fields)
    assert changed_fields(run.model, "resnet50") == fields
    [(field, value)] = fields.items()
    for format in ("torchvision", "timm", "huggingface"):
        if (format, field) != ("huggingface", "preactivation"):  # it names those of BiT
            assert f"{field}={value!r}" in missing_in(run, format)
        with pytest.raises(UsageError, match=r"formats for this run: stablehlo$"):
            check_network(run, format, ("stablehlo", "torchvision", "timm", "huggingface"))


def test_networks_with_other_widths_and_strides_are_only_in_transformers():
    for fields in ({"width": 32}, {"stride_conv": "1x1"}, {"stage_sizes": (1, 1, 1, 1)}):
        run = make_run("resnet50", **fields)
        assert not missing_in(run, "huggingface")
        with pytest.raises(UsageError, match=r"formats for this run: stablehlo, huggingface$"):
            check_network(run, "timm", ("stablehlo", "torchvision", "timm", "huggingface"))


def test_fields_that_matter_only_in_training_change_nothing():
    fields = dict(num_classes=3, drop_path=0.1, dropout=0.2, norm_momentum=0.8, axis_name="batch")
    run = make_run("resnet50", zero_init_last=True, frozen=("head",), **fields)
    assert not any(missing_in(run, format) for format in ("torchvision", "timm", "huggingface"))


def test_own_parts_and_networks_are_refused():
    run = make_run("resnet50", norm=nn.LayerNorm)
    assert "norm=LayerNorm" in missing_in(run, "timm") and missing_in(run, "huggingface")
    run.model = nn.Dense(3)
    assert not missing_in(run, "stablehlo")
    assert "timm has no network 'resnet50'" == missing_in(run, "timm")


def test_preprocessing_that_a_library_lacks_is_refused():
    run = make_run("resnet50")
    run.preprocessing = Preprocessing((256, 320), (224, 280), "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert "shorter side" in missing_in(run, "huggingface")
    assert not missing_in(run, "timm") and not missing_in(run, "torchvision")
    run.preprocessing = dataclasses.replace(run.preprocessing, resize=(256, 400))
    assert "no crop fraction" in missing_in(run, "timm")
    run.preprocessing = Preprocessing(256, 224, "bilinear", (0.5,) * 5, (0.5,) * 5)
    assert "3 channels, not 5" in missing_in(run, "torchvision")
    assert not missing_in(run, "timm") and not missing_in(run, "huggingface")


def test_crop_fraction_gives_timms_resize():
    for size, extra in itertools.product(range(8, 400, 3), range(70)):
        resize = size + extra
        preprocessing = Preprocessing(resize, size, "bilinear", (0.5,) * 3, (0.5,) * 3)
        # timm.data.transforms_factory.transforms_imagenet_eval
        assert math.floor(size / crop_fraction(preprocessing)) == resize


def test_config_of_transformers_describes_the_network():
    config = network_config(make_run("resnet50", num_classes=2))
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
        "problem_type": "single_label_classification",
        "id2label": {0: "class 0", 1: "class 1"},
        "label2id": {"class 0": 0, "class 1": 1},
    }
    config = network_config(make_run("resnet18", stride_conv="1x1", width=32))
    assert (config["embedding_size"], config["hidden_sizes"]) == (32, [32, 64, 128, 256])
    assert (config["layer_type"], config["downsample_in_bottleneck"]) == ("basic", True)
