"""The preprocessing that belongs to weights, against that of the libraries that wrote them."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from flax_resnet.preprocessing import Preprocessing, scale_size
from flax_resnet.weights import find_preprocessing
from flax_resnet.weights.__main__ import main
from flax_resnet.weights.published import torchvision_files
from flax_resnet.weights.published.torchvision_files import PublishedWeights
from tests.flax_resnet.peers import peer
from tests.flax_resnet.weights.weight_files import write_safetensors


def repository(folder, **files):
    """Write files of a repository, ``config={…}`` as config.json; return its folder."""
    write_safetensors(folder / "model.safetensors", {"w": ("F32", [1], b"\0" * 4)})
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    return folder


def prepare(found, image):
    """Return an image as a run that follows ``found`` would prepare it."""
    preprocessing = Preprocessing(
        scale_size(found.image_size, 1, found.crop_pct),
        found.image_size,
        found.interpolation,
        found.mean,
        found.std,
    )
    return np.asarray(preprocessing.normalize(preprocessing.crop(image)[None]))[0]


def smooth_image(height, width):
    """Return a picture without sharp edges, of which all ways to resample make about the same."""
    small = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


# torchvision ----------------------------------------------------------------------------------


@pytest.mark.peer
def test_torchvision_weights_are_those_of_its_tables(tmp_path):
    models = peer("torchvision.models")
    checked = 0
    for name in models.list_models(models):
        for weights in models.get_model_weights(name):
            published = torchvision_files.find_by_id(str(weights))
            if not name.startswith(("resnet", "resnext", "wide_resnet")):
                assert published is None
                continue
            checked += 1
            url, transforms = weights.value.url, weights.transforms()
            assert published.file_name == url.rpartition("/")[2]
            found = find_preprocessing(tmp_path / published.file_name, str(weights))
            (tmp_path / published.file_name).touch()
            assert found == find_preprocessing(tmp_path / published.file_name)
            assert [found.image_size] == transforms.crop_size
            assert [round(found.image_size / found.crop_pct)] == transforms.resize_size
            assert found.interpolation == transforms.interpolation.value
            assert (list(found.mean), list(found.std)) == (transforms.mean, transforms.std)
    assert checked == len(torchvision_files.PUBLISHED)
    resnet50 = models.ResNet50_Weights
    default = torchvision_files.find_by_id("ResNet50_Weights.DEFAULT")
    assert default.file_name == resnet50.DEFAULT.url.rpartition("/")[2]
    timm = peer("timm")
    ids = {published.timm_id for published in torchvision_files.PUBLISHED}
    assert ids <= set(timm.list_pretrained())


def test_a_renamed_torchvision_file_is_known_by_its_content(tmp_path, monkeypatch):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    published = PublishedWeights("resnet50", 1, digest, 256)
    monkeypatch.setattr(torchvision_files, "PUBLISHED", (published,))
    assert find_preprocessing(path).crop_pct == 0.875
    path.write_bytes(b"others!")
    assert torchvision_files.find_by_file(path) is None


@pytest.mark.peer
def test_the_folder_of_torchvision_is_that_of_torch_hub(monkeypatch):
    hub = peer("torch").hub
    for name, value in (("XDG_CACHE_HOME", "/cache"), ("TORCH_HOME", "~/torch")):
        monkeypatch.setenv(name, value)
        assert str(torchvision_files.folder()) == f"{hub.get_dir()}/checkpoints"


# timm -----------------------------------------------------------------------------------------


@pytest.mark.peer
def test_timm_repository(tmp_path):
    """A folder that timm wrote, for a network with values that no other one has."""
    timm = peer("timm")
    net = timm.create_model("resnet10t", num_classes=3)
    net.pretrained_cfg |= {
        "input_size": (3, 128, 160),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }
    timm.models.save_for_hf(net, str(tmp_path))
    theirs = timm.data.resolve_model_data_config(net)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        found = find_preprocessing(path)
        assert (3, *found.image_size) == tuple(theirs["input_size"])
        for name in ("mean", "std", "crop_pct", "interpolation"):
            assert getattr(found, name) == theirs[name]
        assert not found.notes
    # Older files have the fields at the top. timm squashes some images, and knows more filters.
    config = {"architecture": "resnet18", "input_size": [3, 64, 64], "mean": [0.5], "std": [0.2]}
    config |= {"crop_mode": "squash", "interpolation": "lanczos"}
    found = find_preprocessing(repository(tmp_path, config=config))
    assert found.values() == {"mean": (0.5,), "std": (0.2,), "image_size": 64}
    assert "crop_mode='squash'" in found.notes[0] and "'lanczos'" in found.notes[1]


# Hugging Face ---------------------------------------------------------------------------------

HUGGINGFACE = {
    "ConvNextImageProcessor": dict(size={"shortest_edge": 64}, crop_pct=0.8, resample=3),
    "BitImageProcessor": dict(size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}),
    "ViTImageProcessor": dict(size={"height": 64, "width": 96}, rescale_factor=1 / 128),
}


@pytest.mark.peer
@pytest.mark.parametrize("name", HUGGINGFACE)
@pytest.mark.parametrize("normalized", [True, False])
def test_hugging_face_processor(name, normalized, tmp_path):
    """The same picture, prepared by both: they resample with different rounding only."""
    transformers = peer("transformers")
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.3, 0.4, 0.5]} if normalized else {}
    values |= {"do_normalize": normalized}
    processor = getattr(transformers, name)(**HUGGINGFACE[name] | values)
    processor.save_pretrained(repository(tmp_path))
    found = find_preprocessing(tmp_path)
    # Of this shape, so that a processor that does not keep the aspect ratio changes nothing.
    image = smooth_image(120, 180)
    theirs = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    ours = prepare(found, image)
    assert ours.shape == theirs.transpose(1, 2, 0).shape
    assert abs(ours - theirs.transpose(1, 2, 0)).max() < 0.02 * np.ptp(theirs)
    assert bool(found.notes) == (name == "ViTImageProcessor")  # squashes, said in a note


@pytest.mark.peer
def test_large_convnext_processors_squash(tmp_path):
    transformers = peer("transformers")
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 384}, crop_pct=0.8)
    processor.save_pretrained(repository(tmp_path))
    found = find_preprocessing(tmp_path)
    assert (found.image_size, found.crop_pct) == (384, 1.0)
    assert "without keeping the aspect ratio" in found.notes[0]


def test_files_that_contradict_each_other(tmp_path):
    config = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}}
    processor = {"image_mean": [0.4] * 3, "image_std": [0.5] * 3, "size": 64}
    found = find_preprocessing(repository(tmp_path, config=config, preprocessor_config=processor))
    assert found.mean == (0.5,) * 3
    [mean, crop_pct] = found.contradictions
    assert "timm's config.json has mean=" in mean and "preprocessor_config.json has" in mean
    assert "crop_pct" in crop_pct


@pytest.mark.parametrize(
    "text, problem",
    [
        ("{", "not valid JSON"),
        ('{"pretrained_cfg": {"mean": ["a"]}}', r"mean\[0\] must be a number"),
        ('{"pretrained_cfg": {"input_size": [3, 0, 1e9]}}', "input_size"),
        ('{"pretrained_cfg": {"std": [0, 0, 0]}}', "std"),
        ('{"pretrained_cfg": 3}', "an object"),
    ],
)
def test_invalid_files_are_ignored_with_a_note(text, problem, tmp_path):
    found = find_preprocessing(repository(tmp_path, config=text))
    [note] = found.notes
    assert not found.values() and "it is ignored" in note
    assert re.search(problem, note), note


def test_other_json_files_say_nothing(tmp_path):
    repository(tmp_path, config={"model_type": "resnet"})
    assert find_preprocessing(tmp_path) is None
    repository(tmp_path, config=["a"])
    assert find_preprocessing(tmp_path / "model.safetensors") is None
    # Files beside weights with another name may belong to other weights.
    repository(tmp_path, config={"pretrained_cfg": {"crop_pct": 0.5}})
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert find_preprocessing(tmp_path / "other.safetensors") is None


def test_config_of_another_network_is_noted(tmp_path):
    for network, noted in (("vit_base_patch16_224", True), ("resnet50d", False)):
        repository(tmp_path, config={"architecture": network, "pretrained_cfg": {"crop_pct": 0.5}})
        found = find_preprocessing(tmp_path)
        assert found.crop_pct == 0.5
        assert [network in note for note in found.notes] == [True] * noted


def test_inspect_shows_the_preprocessing(tmp_path, capsys):
    config = {"pretrained_cfg": {"mean": [0.5] * 3, "crop_pct": 0.9, "crop_mode": "border"}}
    assert main(["inspect", str(repository(tmp_path, config=config))]) == 0
    output = capsys.readouterr().out
    assert "images    mean 0.5,0.5,0.5, crop_pct 0.9 (timm's config.json)" in output
    assert "note      timm resizes their images with crop_mode='border'" in output
