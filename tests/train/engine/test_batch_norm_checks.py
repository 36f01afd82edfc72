"""Networks whose batch norm would have one value per channel are refused before they train."""

import pytest

from flax_resnet import create_model
from tests.train.test_segmentation_runs import segmentation_config
from train.engine.batch_norm_checks import single_value_norms
from train.engine.experiment import build_experiment
from train.runtime.errors import UsageError

SMALL = dict(block="residual", stage_sizes=(1, 1), width=8)


@pytest.fixture
def build(tmp_path):
    """Return a function that builds a run of a small DeepLabv3 on four devices."""

    def build(**keys):
        config = segmentation_config()
        config.model.update(name="deeplabv3_resnet50", aux_head=False, head_channels=32)
        config.update(batch_size=4, grad_accum_steps=1)
        config.update_from_flattened_dict(keys)
        return build_experiment(config, str(tmp_path / "run"))

    return build


def test_one_image_at_a_time_is_refused_with_the_keys_to_change(build, tmp_path):
    with pytest.raises(UsageError) as error:
        build()
    message = str(error.value)
    assert "one value per channel" in message and "in head/aspp/pool/norm: it sees" in message
    assert "(batch_size=4, grad_accum_steps=1)" in message
    for advice in ("larger config.batch_size", "config.sync_batch_norm=True", "head_norm='group'"):
        assert advice in message
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"a smaller config\.grad_accum_steps"):
        build(batch_size=8, grad_accum_steps=2)


def test_what_the_message_advises_is_accepted(build):
    for keys in ({"batch_size": 8}, {"sync_batch_norm": True}, {"model.head_norm": "group"}):
        build(**keys)


@pytest.mark.parametrize(
    ("model", "fields", "shape", "expected"),
    [
        ("fcn_resnet50", {}, (32, 32, 3), []),
        ("deeplabv3_resnet50", {}, (32, 32, 3), ["head/aspp/pool/norm"]),
        ("deeplabv3_resnet50", {"frozen": ("head",)}, (32, 32, 3), []),
        ("deeplabv3_resnet50", {"freeze_batch_norm": True}, (1, 1, 3), "head/"),
        ("resnet18", {}, (64, 64, 3), []),
        ("resnet18", {"stem": "cifar"}, (2, 2, 3), "stage2"),
        ("resnet18", {"stem": "cifar", "norm": "layer"}, (1, 1, 3), []),
    ],
)
def test_norms_of_one_value_are_found(model, fields, shape, expected):
    names = single_value_norms(create_model(model, **SMALL | fields), shape)
    if isinstance(expected, str):
        assert names and all(name.startswith(expected) for name in names)
    else:
        assert names == expected
