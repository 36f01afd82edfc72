"""timm's ResNets by its names: parameter counts, and files in both directions."""

import functools
import importlib
import re

import jax
import numpy as np
import pytest

from flax_resnet import create_model, list_models, ops, save_weights
from flax_resnet.weights import read_weights
from tests.flax_resnet.peers import assert_close, peer, random_images
from tests.flax_resnet.representatives import representatives
from tests.flax_resnet.test_models import PARAMETERS
from tests.flax_resnet.torch_nets import evaluated, randomize, torch_net

pytestmark = pytest.mark.peer

# Pruned to irregular widths, with norms that only these have, and timm's network for its own tests.
LEFT_OUT = {
    "ecaresnet50d_pruned",
    "ecaresnet101d_pruned",
    "resnetv2_50d_evos",
    "resnetv2_50d_frn",
    "test_resnet",
}
STAGES = (1, 2, 1, 1)
# Of the rows that timm's modules have, except Big Transfer's, which take no number of blocks.
TIMM = {name for name in PARAMETERS if not re.search(r"v2$|_v1$|plain|wrn|_bit$", name)}
TIMM -= {f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)}


def timm_names():
    """Return the names of timm's two ResNet modules."""
    timm = peer("timm")
    return {name for module in ("resnet", "resnetv2") for name in timm.list_models(module=module)}


def ours():
    """Return the names that timm has, too, in the order of our table."""
    return [name for name in list_models() if name in timm_names()]


def test_every_network_of_timm_exists_by_its_name():
    assert timm_names() >= TIMM  # none of our own invention
    assert LEFT_OUT == {name for name in timm_names() if name not in PARAMETERS}
    assert len(ours()) >= 95


def test_parameter_counts_equal_those_of_timm():
    torch = peer("torch")
    counts = {}
    for name in ours():
        with torch.device("meta"):
            net = torch_net("timm", name)
        counts[name] = sum(parameter.numel() for parameter in net.parameters())
    assert counts == {name: PARAMETERS[name] for name in counts}


def small(name):
    """Return timm's network and ours with few blocks and narrow stages."""
    model = create_model(name)
    width = 64 if model.block == "residual" else 32
    stem_width = 64 if model.stem_width is None else model.stem_width
    model = model.clone(stage_sizes=STAGES, width=width, stem_width=stem_width, num_classes=7)
    expansion = 4 if model.preactivation and model.block == "bottleneck" else 1
    channels = tuple(expansion * width * 2**stage for stage in range(4))
    make = functools.partial(torch_net, "timm", name, layers=STAGES, channels=channels)
    return functools.partial(make, num_classes=7), model


def small_bit(factor):
    peer("timm")
    layers, resnetv2 = map(importlib.import_module, ("timm.layers", "timm.models.resnetv2"))
    make = functools.partial(
        resnetv2.ResNetV2,
        (1, 2),
        (128, 256),
        num_classes=7,
        width_factor=factor,
        stem_chs=32,
        stem_type="fixed",
        conv_layer=functools.partial(layers.StdConv2d, eps=1e-8),
    )
    name = f"resnetv2_152x{factor}_bit"
    return make, create_model(name, stage_sizes=(1, 2), width=32 * factor, num_classes=7)


def logits_of(model, variables, images):
    fast = {"xla_backend_optimization_level": 0}  # to compile
    with ops.use_xla_ops():
        return jax.jit(model.apply, compiler_options=fast)(variables, images)


def check_round_trip(make, model, path):
    """Load timm's file, compare logits, save it again, and compare the tensors' bits."""
    safetensors = peer("safetensors.torch")
    net, images = randomize(make()), random_images()
    state = net.state_dict()
    safetensors.save_file(state, path)
    variables, report = read_weights(model, path)
    assert report.complete, report
    assert_close(logits_of(model, variables, images), evaluated(net, images), "logits")
    save_weights(model, variables, path, layout="timm")
    saved = safetensors.load_file(path)
    assert saved.keys() == state.keys()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(saved[name], tensor, name)
    read_weights(model, path)
    make().load_state_dict(saved, strict=True)


@pytest.mark.parametrize("name", [name for name in representatives() if name in TIMM])
def test_round_trip_gives_the_same_logits(name, tmp_path, caplog):
    check_round_trip(*small(name), tmp_path / "w.safetensors")
    assert not caplog.records  # no field that timm lacks


def test_wide_big_transfer_round_trip_gives_the_same_logits(tmp_path):
    check_round_trip(*small_bit(2), tmp_path / "w.safetensors")
