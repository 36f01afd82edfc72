"""Test the choice of the network by the convert command, and the warnings of saving."""

import json

import numpy as np
import pytest

from flax_resnet import create_model, init_variables, load_weights, save_weights
from flax_resnet.weights import WeightsError, read_weights
from flax_resnet.weights.__main__ import LAYOUTS, main
from flax_resnet.weights.loading import only_model
from flax_resnet.weights.naming.layouts import SAVED
from tests.flax_resnet.weights.weight_files import flat, tensors_of, write_safetensors


@pytest.fixture
def nameless(tmp_path):
    """Return a function that writes a model's variables without metadata."""

    def make(name):
        variables = init_variables(create_model(name, num_classes=3), 0, (32, 32, 3))
        np.savez(tmp_path / "in.npz", **flat(variables))
        return variables, tmp_path / "in.npz"

    return make


def test_command_offers_all_layouts():
    assert LAYOUTS == tuple(SAVED)


def test_convert_requires_model_if_several_fit(nameless, tmp_path, capsys):
    variables, source = nameless("plain20")
    target = tmp_path / "out.safetensors"
    arguments = ["convert", str(source), str(target), "--layout", "torchvision"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "fits resnet20 or plain20; choose the network with --model" in error
    assert not target.exists()
    assert main([*arguments, "--model", "plain20"]) == 0
    assert "plain20, 3 classes" in capsys.readouterr().out
    np.testing.assert_array_equal(
        load_weights("plain20", target)["params"]["head"]["kernel"],
        variables["params"]["head"]["kernel"],
    )


def test_torch_names_imply_the_stride_in_the_3x3_convolution(tmp_path, capsys):
    model = create_model("resnet50", num_classes=3)
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_weights(model, init_variables(model, 0, (32, 32, 3)), source)
    assert main(["convert", str(source), str(target), "--layout", "timm"]) == 0
    assert "resnet50, 3 classes" in capsys.readouterr().out


def test_anti_aliased_networks_are_inferred_only_from_metadata(tmp_path, capsys, caplog):
    """Their tensors are those of the networks without filters."""
    model = create_model("resnetblur18", num_classes=3)
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    save_weights(model, init_variables(model, 0, (32, 32, 3)), source)
    note = "resnet18 is assumed: resnetblur18 has the same tensors, but other logits"
    for name, noted in (("resnetblur18", False), ("resnet18", True)):
        caplog.clear()
        assert main(["convert", str(source), str(target), "--layout", "timm"]) == 0
        assert f": {name}, 3 classes" in capsys.readouterr().out
        assert (f"{note}; choose the network with --model" in caplog.text) == noted
        assert main(["inspect", str(source)]) == 0
        assert (note in capsys.readouterr().out) == noted
        write_safetensors(source, tensors_of(source))


def test_config_json_beside_the_weights_shows_what_tensors_do_not(tmp_path, caplog):
    """timm's name of the network, and the strides and the activation of transformers' ResNet."""
    variables = init_variables(create_model("resnetblur18", num_classes=3), 0, (32, 32, 3))
    source, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    save_weights("resnetblur18", variables, source, layout="timm")
    write_safetensors(source, tensors_of(source))
    config.write_text(json.dumps({"architecture": "resnetblur18"}))
    for path in (source, tmp_path):
        assert only_model(path) == "resnetblur18"
        assert not read_weights("resnetblur18", path)[1].doubts
        [doubt] = read_weights("resnet18", path)[1].doubts
        assert "antialias='blur', this one has None: its logits will differ" in doubt
    config.write_text(json.dumps({"architecture": "resnet18"}))
    assert only_model(source) == "resnet18" and not caplog.text
    for text in ("[]", "{", '{"architecture": []}', '{"architecture": "vit"}'):
        config.write_text(text)
        assert not read_weights("resnet18", source)[1].doubts

    model = create_model("resnet50", stage_sizes=(1, 1), width=8, num_classes=3)
    save_weights(model, init_variables(model, 0, (32, 32, 3)), source, layout="huggingface")
    write_safetensors(source, tensors_of(source))
    settings = {"model_type": "resnet", "downsample_in_bottleneck": True, "hidden_act": "gelu"}
    config.write_text(json.dumps(settings))
    doubts = read_weights(model, source)[1].doubts
    assert ["stride_conv='1x1'" in doubts[0], "activation='gelu'" in doubts[1]] == [True, True]
    like = model.clone(stride_conv="1x1", activation="gelu")
    assert not read_weights(like, source)[1].doubts
    config.write_text(json.dumps(settings | {"downsample_in_first_stage": True}))
    with pytest.raises(WeightsError, match="gives the first stage stride 2"):
        read_weights(like, source)


def test_saving_group_norm_in_torchvision_names_warns(tmp_path, caplog):
    model = create_model("resnet50_gn", stage_sizes=(1, 1), width=32, num_classes=3)
    variables = init_variables(model, 0, (32, 32, 3))
    for layout, warns in (("torchvision", True), ("timm", False)):
        caplog.clear()
        save_weights(model, variables, tmp_path / "w.safetensors", layout=layout)
        assert ("norm='group'" in caplog.text) == warns
