"""Test downloading published weights, with a mocked hub."""

import pytest

from flax_resnet import load_pretrained
from flax_resnet.weights import WeightsError
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
    assert_same(load_pretrained("small.a1_in1k", model=SMALL, revision="v2"), variables)
    assert requests[-1] == ("timm/small.a1_in1k", "pytorch_model.bin", "v2")
    offline = True
    with pytest.raises(WeightsError, match=r"could not be downloaded.*network.*load_weights"):
        load_pretrained("microsoft/resnet-50")
    assert requests[-1] == ("microsoft/resnet-50", "model.safetensors", None)


def test_ids_of_unknown_models_are_rejected_before_the_download(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(WeightsError, match=r"'vit_base' is not in list_models.*model="):
        load_pretrained("vit_base.augreg_in1k")
