"""Test downloading published weights, with a mocked hub."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flax_resnet import create_model, from_pretrained, init_variables, save_weights
from flax_resnet.weights import WeightsError, hub
from tests.flax_resnet.peers import assert_same
from tests.flax_resnet.weights.weight_files import SMALL


def test_pretrained_ids_are_downloaded_from_the_hub(saved, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    errors = pytest.importorskip("huggingface_hub.errors")
    variables, path = saved
    requests = []

    def download(repository, name, revision=None):
        requests.append((repository, name, revision))
        if name != "pytorch_model.bin":
            raise errors.LocalEntryNotFoundError("offline") if offline else missing
        return str(path)

    missing = errors.EntryNotFoundError("no such file")
    monkeypatch.setattr(hub, "hf_hub_download", download)
    offline = False
    model, loaded = from_pretrained("small.a1_in1k", model=SMALL, revision="v2")
    assert model == SMALL
    assert_same(loaded, variables)
    assert requests[-1] == ("timm/small.a1_in1k", "pytorch_model.bin", "v2")
    offline = True
    with pytest.raises(WeightsError, match=r"could not be downloaded.*network.*from_pretrained"):
        from_pretrained("microsoft/resnet-50")
    assert requests[-1] == ("microsoft/resnet-50", "model.safetensors", None)


def test_ids_of_unknown_models_are_rejected_before_the_download(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(WeightsError, match=r"'vit_base' is not in list_models.*model="):
        from_pretrained("vit_base.augreg_in1k")


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
