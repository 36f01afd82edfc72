"""Test checkpoints, types and corrupt files written by torch.save and safetensors."""

import argparse
import collections
import datetime
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import ResNet, load_weights
from flax_resnet.weights import WeightsError, read_weights
from tests.flax_resnet.peers import assert_same, peer
from tests.flax_resnet.torch_nets import hugging_face_net, randomize

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def small():
    """The state dict of a small PyTorch network, and our network for it."""
    model = ResNet((1, 2), width=8, num_classes=11)
    return randomize(hugging_face_net(model)).state_dict(), model


def saved_with_torch(content, path, **options):
    torch = peer("torch")
    torch.save(content, path, **options)
    return path


def reference(state, model, path):
    peer("safetensors.torch").save_file(state, path)
    return load_weights(model, path)


def wrappers(state):
    torch = peer("torch")
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    name = "resnet.encoder.stages.1.layers.0.layer.1.convolution.weight"
    base = state[name]
    wide = torch.zeros(2, *base.shape).copy_(base)
    flipped = base.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return {
        "plain": dict(state),
        "ordered": collections.OrderedDict(state),
        "state_dict": {"epoch": 3, "state_dict": state, "optimizer": optimizer, "best": 71.5},
        "model": {"model": {"state_dict": state}, "args": argparse.Namespace(lr=0.1, x=[1])},
        "extras": {
            "state_dict": state,
            "best": np.float64(71.5),
            "curve": np.arange(3.0),
            "milestones": collections.Counter([30, 60]),
            "epochs": {1, 2},
            "started": datetime.datetime(2026, 1, 1),
            "path": pathlib.PosixPath("runs"),
            "type": torch.float16,
            "device": torch.device("cpu"),
            "sizes": torch.zeros(2, 3).shape,
            "scores": collections.defaultdict(list, a=[1]),
        },
        "module": {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        "parameters": {name: torch.nn.Parameter(t, False) for name, t in state.items()},
        "view": state | {name: wide[1]},
        "non-contiguous": state | {name: flipped},
        "shared": state | {name: base, "unused.copy": base[:2]},
    }


@pytest.mark.parametrize(
    "kind",
    "plain ordered state_dict model extras module parameters view non-contiguous shared".split(),
)
def test_state_dicts_are_found_in_all_wrappers(kind, small, tmp_path):
    state, model = small
    expected = reference(state, model, tmp_path / "reference.safetensors")
    old = dict(_use_new_zipfile_serialization=False)  # of PyTorch before version 1.6
    for options in (dict(pickle_protocol=2), dict(pickle_protocol=4), old):
        path = saved_with_torch(wrappers(state)[kind], tmp_path / "w.pt", **options)
        variables, report = read_weights(model, path)
        assert_same(variables, expected)
        assert report.skipped == (("unused.copy",) if kind == "shared" else ())
        assert not report.missing and not report.mismatched


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_torch_types_are_converted_to_float32(dtype, small, tmp_path):
    torch = peer("torch")
    state, model = small
    cast = {
        name: t.to(getattr(torch, dtype)) if t.is_floating_point() else t
        for name, t in state.items()
    }
    variables = load_weights(model, saved_with_torch(cast, tmp_path / "w.bin"))
    back = {name: t.to(torch.float32) for name, t in cast.items()}
    assert_same(variables, reference(back, model, tmp_path / "r"))


@pytest.mark.parametrize("new", [True, False])
def test_pickled_modules_are_rejected(new, small, tmp_path):
    torch = peer("torch")
    _, model = small
    path = tmp_path / "w.pth"
    saved_with_torch(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=new)
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"):
        load_weights(model, path)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_truncated_torch_files_raise_weights_error(keep, new, small, tmp_path):
    state, model = small
    path = tmp_path / "w.pth"
    saved_with_torch(state, path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(WeightsError, match="corrupt or truncated"):
        load_weights(model, path)


def test_flipped_byte_in_a_torch_file_is_detected(small, tmp_path):
    state, model = small
    path = saved_with_torch(state, tmp_path / "w.pth")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="corrupt"):
        load_weights(model, path)


def test_bfloat16_safetensors_are_read(small, tmp_path):
    torch, safetensors = peer("torch"), peer("safetensors.torch")
    state, model = small
    cast = {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
    safetensors.save_file(cast, tmp_path / "b")
    back = {n: t.to(torch.float32) for n, t in cast.items()}
    expected = reference(back, model, tmp_path / "r")
    assert_same(load_weights(model, tmp_path / "b"), expected)
    assert jnp.asarray(expected["params"]["head"]["bias"]).dtype == jnp.float32
