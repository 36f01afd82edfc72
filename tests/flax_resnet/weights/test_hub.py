"""Test downloading published weights: the hub's real client with a hub on loopback."""

import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flax_resnet import create_model, from_pretrained, init_variables, save_weights
from flax_resnet.weights import WeightsError
from flax_resnet.weights.published import hub
from tests.conftest import ROOT, free_port
from tests.flax_resnet.peers import assert_same, randomized
from tests.flax_resnet.weights import hub_server
from tests.flax_resnet.weights.weight_files import SMALL

# Loads each id, and prints the number of classes, a checksum and the preprocessing, or the error.
SCRIPT = """
import json, sys
from flax_resnet import ResNet, from_pretrained
from flax_resnet.weights import WeightsError, find_preprocessing
from flax_resnet.weights.published import hub
from tests.flax_resnet.weights.weight_files import SMALL
for source in json.loads(sys.argv[1]):
    try:
        model, variables = from_pretrained(source, model=SMALL)
        found = find_preprocessing(hub.download(source), source)
        head = variables["params"]["head"]["kernel"]
        print(json.dumps([float(head.sum()), found and found.values()]))
    except WeightsError as error:
        print(json.dumps(str(error)))
"""


def load(endpoint, home, *sources):
    """Load ids in a new process; return the answers and what it wrote to stderr."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(sources)],
        env=hub_server.environment(endpoint, home) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()], process.stderr


@pytest.fixture
def repositories(saved):
    """Repositories of timm, Microsoft and torchvision's weights at timm; their heads' sums."""
    pytest.importorskip("huggingface_hub")
    variables, path = saved
    weights = path.read_bytes()
    timm = {"architecture": "resnet50", "pretrained_cfg": {"crop_pct": 0.95, "mean": [0.1] * 3}}
    microsoft = {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875}
    microsoft |= {"size": 224, "resample": 3}
    served = {
        "timm/resnet50.a1_in1k": {
            "config.json": json.dumps(timm).encode(),
            "model.safetensors": weights,
        },
        "microsoft/resnet-50": {
            "config.json": b'{"model_type": "resnet"}',
            "preprocessor_config.json": json.dumps(microsoft).encode(),
            "model.safetensors": weights,
        },
        "timm/resnet50.tv2_in1k": {"model.safetensors": weights},
        "timm/empty": {"README.md": b""},
    }
    return served, float(variables["params"]["head"]["kernel"].sum())


def test_ids_of_timm_microsoft_and_torchvision_are_downloaded(repositories, tmp_path):
    served, head = repositories
    ids = ("resnet50.a1_in1k", "microsoft/resnet-50", "ResNet50_Weights.IMAGENET1K_V2")
    wrong = ("timm/empty", "microsoft/none", "microsoft/resnet 50")
    with hub_server.serve(served) as endpoint:
        (*loaded, empty, missing, invalid), stderr = load(endpoint, tmp_path, *ids, *wrong)
    assert [one[0] for one in loaded] == pytest.approx([head] * 3)
    timm, microsoft, torchvision = (one[1] for one in loaded)
    assert timm == {"crop_pct": 0.95, "mean": [0.1] * 3}
    assert microsoft == {"image_size": 224, "crop_pct": 0.875, "interpolation": "bicubic"}
    assert torchvision["crop_pct"] == 224 / 232 and torchvision["interpolation"] == "bilinear"
    assert empty.startswith("timm/empty has none of model.safetensors, pytorch_model.bin")
    assert missing == "the hub has no microsoft/none, or it is not public; check the id"
    assert invalid.startswith("'microsoft/resnet 50' is not a valid hub id")
    assert "Retrying" not in stderr

    # The hub is out of reach: the cache serves, and others end soon, in one line, without noise.
    started = time.monotonic()
    nowhere = f"http://127.0.0.1:{free_port()}"
    (*cached, error), stderr = load(nowhere, tmp_path, *ids, "microsoft/resnet-18")
    assert cached == loaded
    assert error == (
        "microsoft/resnet-18 could not be downloaded (ConnectError) and is not in the cache: check"
        " the network, or download its model.safetensors elsewhere and call from_pretrained(FILE)"
    )
    assert "127.0.0.1" not in stderr and "Retrying" not in stderr
    assert time.monotonic() - started < 60  # on a busy machine; the client itself takes 23 s an id


def test_ids_of_unknown_models_are_rejected_before_the_download(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(WeightsError, match=r"'vit_base' is not in list_models.*model="):
        from_pretrained("vit_base.augreg_in1k")


def test_torchvision_weights_are_taken_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = create_model("resnet18", num_classes=3)
    variables = randomized(model)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    save_weights(model, variables, folder / "w.safetensors")
    (folder / "w.safetensors").rename(folder / "resnet18-f37072fd.pth")
    loaded_model, loaded = from_pretrained("ResNet18_Weights.DEFAULT")
    assert loaded_model == model
    assert_same(loaded, variables)


def test_a_name_without_a_tag_is_rejected():
    with pytest.raises(WeightsError, match=r"resnet50 is a network; add the tag"):
        from_pretrained("resnet50")


def test_a_file_gives_a_network_with_a_new_head(saved):
    variables, path = saved
    model, loaded = from_pretrained(
        path, model=SMALL, num_classes=10, seed=3, dtype=jnp.bfloat16, output_stride=4
    )
    assert model == SMALL.clone(num_classes=10, dtype=jnp.bfloat16, output_stride=4)
    head = loaded["params"].pop("head")
    assert variables["params"].pop("head")["kernel"].shape[-1] != 10
    assert_same(loaded, variables)
    # PyTorch's default for linear layers: uniform within 1/sqrt(inputs), here for weight and none
    # for the bias.
    bound = head["kernel"].shape[0] ** -0.5
    assert 0.8 * bound < abs(head["kernel"]).max() < bound and head["kernel"].shape[1] == 10
    assert not head["bias"].any()
    assert (
        model.apply(loaded | {"params": loaded["params"] | {"head": head}}, jnp.ones((1, 8, 8, 3)))
    ).shape == (1, 10)


def test_a_file_shows_its_network_and_classes(tmp_path):
    model = create_model("resnet20", num_classes=7)
    variables = init_variables(model, 0, (32, 32, 3))
    save_weights("resnet20", variables, tmp_path / "w.safetensors")
    loaded, _ = from_pretrained(tmp_path / "w.safetensors")
    assert loaded == model


def test_the_old_name_leads_to_the_new_one():
    with pytest.raises(ImportError, match="now from_pretrained"):
        from flax_resnet import load_pretrained  # noqa: F401


def test_a_part_of_a_file_is_named(saved, tmp_path):
    variables, path = saved
    tensors = load_file(path)
    other = {name: np.asarray(tensor + 1) for name, tensor in tensors.items()}
    parts = {"model": other, "ema": tensors}
    named = {f"{part}.{n}": tensor for part, file in parts.items() for n, tensor in file.items()}
    save_file(named, tmp_path / "parts.safetensors")
    for source in (f"{tmp_path}/parts.safetensors#ema", str(tmp_path / "parts.safetensors")):
        model, loaded = from_pretrained(source, model=SMALL)
        expected = (
            variables if source.endswith("#ema") else jax.tree.map(lambda v: v + 1, variables)
        )
        assert model == SMALL
        assert_same(loaded, expected)
    assert hub.is_path("w.msgpack#ema") and not hub.is_path("resnet50.a1_in1k#ema")
