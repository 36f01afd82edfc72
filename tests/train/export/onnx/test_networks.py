"""Networks in ONNX Runtime compute their logits.

``benchmarks/studies/onnx_export.py networks`` compares every network of the table.
"""

import pytest

from tests.train.export.onnx.conversion import kinds
from tests.train.export.onnx.networks import check_network, different_networks, narrow


@pytest.mark.parametrize("name", different_networks())
def test_logits_of_the_shallowest_network_of_each_kind(name):
    model, difference = check_network(narrow(name))
    assert difference < 1e-4
    assert kinds(model).count("Transpose") == 1  # of the images
    assert "BatchNormalization" not in kinds(model)


@pytest.mark.parametrize(
    "fields",
    [
        *({"activation": "gelu"}, {"activation": "mish"}, {"norm": "layer"}, {"conv_bias": "all"}),
        *({"output_stride": 8}, {"output_stride": 8, "shortcut": "average_pool"}),
        *({"shortcut": "zero_pad"}, {"shortcut": "projection_all"}, {"stride_block": "last"}),
        {"weight_standardization": True, "preactivation": True, "norm": "layer"},
    ],
    ids=str,
)
def test_logits_of_changed_networks(fields):
    from flax_resnet import create_model

    model = create_model("resnet18", num_classes=7, width=16, stage_sizes=(1, 1, 2), **fields)
    _, difference = check_network(model)
    assert difference < 1e-4
