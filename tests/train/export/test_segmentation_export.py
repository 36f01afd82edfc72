"""train.export of runs of task='segmentation': the files compute the run's logits elsewhere."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import onnxruntime
import pytest
from flax import linen as nn
from PIL import Image
from sklearn.metrics import jaccard_score

from flax_resnet import create_model, load_run, load_weights
from flax_resnet.dense.pixel_classes import PixelClassifier
from tests.flax_resnet.peers import import_torchvision, peer, randomized
from tests.train.pictures import photograph
from tests.train.test_predict_masks import logits_of, make_run
from tests.train.test_segmentation_runs import CLASSES
from train.export import exporting, loaders, model_card
from train.export.onnx import quantization
from train.export.outputs import folded
from train.export.support import changed_fields, missing_in
from train.runtime.errors import RunError

HEIGHT, WIDTH = 64, 48


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("runs") / "street")
    return load_run(make_run(path, (HEIGHT, WIDTH)), kind="segmentation")


@pytest.fixture(scope="module")
def images():
    return np.stack([photograph(seed, HEIGHT, WIDTH) for seed in range(3)])


@pytest.fixture(scope="module")
def expected(run, images):
    """The logits of the images, one at a time and without this project's preprocessing."""
    logits = np.stack([logits_of(run, image) for image in images])
    assert logits.std() > 0.1 and len(np.unique(logits.argmax(-1))) > 1
    return logits


def assert_same_logits(actual, expected):
    assert actual.shape == expected.shape and actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * abs(expected).max())


@pytest.fixture(scope="module")
def exported(commands, run, tmp_path_factory):
    """The folder with the run's ONNX and StableHLO files, written by the command."""
    folder = tmp_path_factory.mktemp("exported")
    for format in ("onnx", "stablehlo"):
        flags = ("--workdir", run.path, "--format", format, "--output", folder / f"street.{format}")
        done = commands.call("train.export", *flags)
        assert (done.returncode, done.stderr) == (0, "")
        assert "maximum difference of the logits" in done.stdout
        assert "of the largest in 8 images of the evaluation split" in done.stdout
    return folder


def test_onnx_runtime_returns_the_logits_of_every_pixel(exported, images, expected):
    session = onnxruntime.InferenceSession(
        str(exported / "street.onnx"), providers=["CPUExecutionProvider"]
    )
    [given], [returned] = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == (
        *("images", "tensor(uint8)"),
        [HEIGHT, WIDTH, 3],
    )
    assert (returned.name, returned.type) == ("logits", "tensor(float)")
    assert returned.shape[1:] == [HEIGHT, WIDTH, len(CLASSES)]
    for part in (slice(0, 1), slice(1, 3)):
        [logits] = session.run(["logits"], {"images": images[part]})
        assert_same_logits(logits, expected[part])
    facts = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["class_names"] == list(CLASSES) and facts["includes_preprocessing"]
    assert facts["canvas"] == [HEIGHT, WIDTH] and facts["canvas_fill"] == [124, 116, 104]
    assert (facts["kind"], facts["ignored_class"], facts["main_metric"]) == (
        *("segmentation", 255),
        "miou",
    )


def in_new_process(code, folder):
    """Run Python that does not see this project."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_stablehlo_returns_them_in_a_process_without_this_project(exported, images, expected):
    np.save(exported / "pictures.npy", images)
    code = """
import sys, numpy as np
from jax import export
program = export.deserialize(bytearray(open("street.stablehlo", "rb").read()))
images = np.load("pictures.npy")
parts = [program.call(part) for part in (images[:1], images[1:])]
np.save("logits.npy", np.concatenate(parts))
assert not {"flax", "flax_resnet", "train", "orbax"} & set(sys.modules)
"""
    in_new_process(code, exported)
    assert_same_logits(np.load(exported / "logits.npy"), expected)


@pytest.mark.parametrize("format", ["onnx", "stablehlo"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (50, 31)])
def test_code_of_the_model_card_writes_the_mask_of_a_picture(exported, run, format, size):
    picture = photograph(4, *size)
    Image.fromarray(picture).save(exported / "picture.png")
    card = (exported / f"street.{format}.model_card.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    printed = in_new_process(code.replace("picture.jpg", "picture.png"), exported)
    mask = np.asarray(Image.open(exported / "mask.png"))
    classes = PixelClassifier(run)(picture)
    assert mask.shape == size and len(np.unique(classes)) > 1
    assert (mask != classes).mean() < 0.001  # two logits that differ by the rounding
    shares = dict(line.split() for line in printed.splitlines())
    assert {*shares} == {CLASSES[number] for number in np.unique(mask)}
    assert sum(map(float, shares.values())) == pytest.approx(1)
    for words in ("`logits`, 64×48×5 per image", "value 255 have no class", "metric is `miou`"):
        assert words in card


def test_a_larger_picture_is_shrunk_by_the_code_of_the_card(exported):
    Image.fromarray(photograph(5, 3 * HEIGHT, WIDTH)).save(exported / "picture.png")
    card = (exported / "street.onnx.model_card.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    in_new_process(code.replace("picture.jpg", "picture.png"), exported)
    assert Image.open(exported / "mask.png").size == (WIDTH // 3, HEIGHT)


def test_raw_onnx_takes_normalized_images(run, images, expected, tmp_path):
    path = tmp_path / "raw.onnx"
    list(exporting.export(run, "onnx", str(path), raw=True))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    mean, std = run.preprocessing.mean, run.preprocessing.std
    inputs = ((images / 255 - mean) / std).astype(np.float32)
    assert_same_logits(session.run(["logits"], {"images": inputs})[0], expected)


def test_batch_norm_is_folded_whatever_the_norm_of_the_heads(run, images):
    small = dict(stage_sizes=(1, 1), width=8, pyramid_channels=8, head_channels=32)
    fpn = with_network(run, "semantic_fpn_resnet18", **small)
    model, variables = folded(fpn)
    assert fpn.model.norm == "group" and "batch_stats" in fpn.variables
    assert [*variables] == ["params"] and model.backbone.norm == "folded"
    own = dataclasses.replace(fpn, model=OnBackbone(fpn.model.backbone))
    assert folded(own)[0] is own.model  # nothing shows where its norms are


class OnBackbone(nn.Module):
    """A network of a user, on a backbone with batch norm."""

    backbone: nn.Module


def test_code_for_images_of_other_channels_reads_prepared_arrays(run):
    five = dataclasses.replace(run.preprocessing, mean=(0.5,) * 5, std=(0.5,) * 5)
    changed = dataclasses.replace(run, preprocessing=five)
    for format in ("onnx", "stablehlo"):
        loader = loaders.loader_for_format(changed, format)
        code = model_card.snippet(changed, loader, format, 'it\'s "x"')
        compile(code, "card", "exec")
        assert "uint8 (N, 64, 48, 5), prepared" in code and "mask.png" not in code


def test_wrong_logits_of_one_pixel_are_found(run, tmp_path, monkeypatch):
    def outputs(loader, folder, name):
        images = np.load(os.path.join(folder, "images.npy"))
        logits = np.array(run.model.apply(run.variables, run.preprocessing.normalize(images)))
        logits[-1, 5, 7, 2] += 0.01 * abs(logits).max()
        return {"logits": logits}

    monkeypatch.setattr(exporting, "_outputs_in_subprocess", outputs)
    with pytest.raises(RunError, match=r"logits .* more than 0\.0001; the file was kept"):
        list(exporting.export(run, "stablehlo", str(tmp_path / "street")))


def test_quantization_reports_miou_on_the_evaluation_split(run, tmp_path):
    path = tmp_path / "street.onnx"
    list(exporting.export(run, "onnx", str(path)))
    dataset = exporting.run_files.read_config(run.path).dataset
    inputs, masks = quantization.sample(run, dataset, dataset.eval_split, 1000)
    assert inputs.shape == (26, HEIGHT, WIDTH, 3) and masks.shape == inputs.shape[:3]
    scores = {}
    exact = str(path).replace("street", "exact")
    path.replace(exact)
    os.link(exact, path)
    result = quantization.quantize(run, str(path), raw=False)
    for kind, file in (("float32", exact), ("int8", str(path))):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        answers = session.run(None, {"images": inputs})[0].argmax(-1)
        labels, answers = masks[masks < 255], answers[masks < 255]
        union = np.union1d(labels, answers)
        scores[kind] = jaccard_score(labels, answers, labels=union, average="macro")
    assert result.float32 == pytest.approx(scores["float32"], abs=1e-9)
    assert result.int8 == pytest.approx(scores["int8"], abs=1e-3)  # in batches of another size
    assert result.images == 26 and result.describe().startswith("int8: miou 0.")


# Other libraries ---------------------------------------------------------------------------


def with_network(run, name, **fields):
    """Return the run with another network with random weights."""
    model = create_model(name, num_classes=len(CLASSES), **fields)
    config = run.config | {"model.name": name}
    return dataclasses.replace(run, model=model, variables=randomized(model), config=config)


@pytest.mark.parametrize(
    "name, fields, changed",
    [
        ("fcn_resnet101", {"aux_head": True, "dropout": 0.2, "freeze_batch_norm": True}, {}),
        ("deeplabv3_resnet50", {"atrous_rates": (12, 24, 36), "head_norm": "batch"}, {}),
        ("deeplabv3_resnet50", {"output_stride": 16}, None),
        ("fcn_resnet50", {"head_channels": 64}, {"head_channels": 64}),
        ("fcn_resnet50", {"width": 32}, {"width": 32}),
        ("fcn_resnet50", {"stem": "cifar"}, {"stem": "cifar"}),
    ],
)
def test_torchvision_has_the_networks_with_its_own_fields(run, name, fields, changed):
    model = create_model(name, num_classes=3, **fields)
    other = dataclasses.replace(run, model=model, config=run.config | {"model.name": name})
    reason = missing_in(other, "torchvision")
    if changed is None:  # the rates follow from the stride
        changed = {"atrous_rates": (6, 12, 18), "output_stride": 16}
    assert changed_fields(model, name) == changed
    assert all(f"{field}={value!r}" in reason for field, value in changed.items())
    assert bool(reason) == bool(changed)


def test_libraries_without_such_networks_are_refused_with_the_formats_that_work(
    commands, run, tmp_path
):
    for format, library in (("timm", "timm"), ("huggingface", "transformers")):
        output = tmp_path / "new" / "model.safetensors"
        flags = ("--workdir", run.path, "--format", format, "--output", output)
        done = commands.call("train.export", *flags)
        assert done.returncode == 2 and not done.stdout and not output.parent.exists()
        assert done.stderr == (
            f"error: {library} has no network for segmentation 'fcn_resnet50'; formats for this"
            " run: stablehlo, onnx\n"
        )
    fpn = with_network(run, "semantic_fpn_resnet18")
    assert "has no network for segmentation" in missing_in(fpn, "torchvision")


@pytest.mark.peer
@pytest.mark.parametrize(
    "name, fields", [("fcn_resnet50", {"aux_head": True}), ("deeplabv3_resnet50", {})]
)
def test_torchvisions_own_network_computes_the_same_logits(run, images, tmp_path, name, fields):
    torch = peer("torch")
    peer("torchvision")
    operators = import_torchvision()
    other = with_network(run, name, **fields)
    path = tmp_path / "street.safetensors"
    *_, verified, _ = exporting.export(other, "torchvision", str(path))
    assert verified.startswith("verified with torchvision in a separate process")
    segmentation = importlib.import_module("torchvision.models.segmentation")
    state = importlib.import_module("safetensors.torch").load_file(path)
    made = getattr(segmentation, name)
    net = made(weights=None, weights_backbone=None, num_classes=len(CLASSES), aux_loss=bool(fields))
    net.load_state_dict(state, strict=True)
    mean, std = run.preprocessing.mean, run.preprocessing.std
    inputs = torch.tensor((images / 255 - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = net.eval()(inputs)["out"].permute(0, 2, 3, 1).numpy()
    expected = np.concatenate([logits_of(other, image)[None] for image in images])
    assert operators and expected.std() > 0.1
    assert_same_logits(logits, expected)
    read = load_weights(other.model, path)
    jax.tree.map(np.testing.assert_array_equal, read, other.variables)


def test_weights_are_verified_with_this_library_without_pytorch(run, tmp_path, monkeypatch):
    monkeypatch.setattr(loaders, "_import_error", lambda imports: "a test" * bool(imports))
    other = with_network(run, "fcn_resnet50", aux_head=True)
    output = "\n".join(exporting.export(other, "torchvision", str(tmp_path / "a.safetensors")))
    assert "verified with flax_resnet" in output
