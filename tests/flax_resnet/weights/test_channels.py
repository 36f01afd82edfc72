"""A stem for RGB starts networks of other channel counts, with timm's weights."""

import numpy as np
import pytest

from flax_resnet import create_model, init_variables, save_weights
from flax_resnet.weights import WeightsError, read_weights
from tests.flax_resnet.peers import peer

MODEL = create_model("resnet18", stage_sizes=(1, 1, 1, 1), num_classes=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "rgb.safetensors"
    variables = init_variables(MODEL, 0, (64, 64, 3))
    save_weights(MODEL, variables, path)
    return path, variables


def stem(variables):
    return variables["params"]["stem_conv"]["kernel"]


@pytest.mark.peer
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 12])
def test_adapted_weights_are_those_of_timm(file, channels):
    path, _ = file
    timm = peer("timm")
    net = timm.create_model(
        *("resnet18", True),
        pretrained_cfg_overlay={"file": str(path), "num_classes": 5, "first_conv": "conv1"},
        in_chans=channels,
        num_classes=5,
        layers=(1, 1, 1, 1),
    )
    variables, report = read_weights(MODEL, path, channels=channels)
    expected = net.conv1.weight.detach().numpy().transpose(2, 3, 1, 0)
    assert expected.shape == (7, 7, channels, 64)
    np.testing.assert_allclose(stem(variables), expected, rtol=0, atol=1e-7)
    assert report.complete and f"for {channels}" in str(report)


@pytest.mark.parametrize("channels", [1, 6, 12])
def test_the_response_to_equal_channels_is_kept(file, channels):
    path, original = file
    variables, _ = read_weights(MODEL, path, channels=channels)
    np.testing.assert_allclose(stem(variables).sum(2), stem(original).sum(2), atol=1e-6)
    np.testing.assert_array_equal(
        variables["params"]["head"]["kernel"], original["params"]["head"]["kernel"]
    )


def test_the_same_channels_stay_as_they_are(file):
    path, original = file
    for channels in (None, 3):
        variables, report = read_weights(MODEL, path, channels=channels)
        np.testing.assert_array_equal(stem(variables), stem(original))
        assert not report.notes


def test_only_weights_for_rgb_are_adapted(tmp_path):
    save_weights(MODEL, init_variables(MODEL, 0, (64, 64, 2)), tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match="with 2 channels, and cannot be adapted to 4: only"):
        read_weights(MODEL, tmp_path / "two.safetensors", channels=4)


@pytest.mark.parametrize("channels", [0, 17])
def test_the_number_of_channels_is_checked(channels):
    with pytest.raises(WeightsError, match=f"channels must be 1 to 16, not {channels}"):
        read_weights(MODEL, "no.safetensors", channels=channels)
