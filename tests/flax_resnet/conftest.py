"""Fixtures for the tests of weight files."""

import pytest

from flax_resnet import save_weights
from tests.flax_resnet.peers import randomized
from tests.flax_resnet.weights.weight_files import SMALL


@pytest.fixture
def saved(tmp_path):
    """Variables of SMALL, and a file of them in torchvision's layout."""
    variables = randomized(SMALL)
    save_weights(SMALL, variables, tmp_path / "small.safetensors")
    return variables, tmp_path / "small.safetensors"
