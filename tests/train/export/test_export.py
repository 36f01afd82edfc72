"""What train.export writes, loaded elsewhere."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from flax_resnet import create_model, load_run, load_weights
from tests.flax_resnet.peers import import_torchvision, peer, randomized
from train.export import exporting, loaders, model_card
from train.runtime.errors import RunError, UsageError


@pytest.fixture(scope="module")
def run(digits_run):
    return load_run(digits_run)


@pytest.fixture(scope="module")
def squares(run):
    images, real = exporting.real_squares(run)
    assert real and images.shape == (8, 8, 8, 3) and images.std() > 10
    return images


@pytest.fixture(scope="module")
def stablehlo(commands, digits_run, tmp_path_factory):
    """The folder of an export by the command."""
    folder = tmp_path_factory.mktemp("export")
    process = commands.run(
        "train.export",
        *("--workdir", digits_run, "--format", "stablehlo"),
        *("--output", folder / "digits.stablehlo"),
    )
    assert process.returncode == 0, process.stderr
    assert "loaded it with jax" in process.stdout and "evaluation split" in process.stdout
    assert not process.stderr
    return folder


def python(code, cwd):
    """What a fresh process prints that sees neither this project nor its folder."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_stablehlo_gives_the_same_with_nothing_but_jax(stablehlo, run, squares, tmp_path):
    np.save(tmp_path / "images.npy", squares)
    file = stablehlo / "digits.stablehlo"
    code = f"""
import sys, numpy as np
from jax import export
exported = export.deserialize(bytearray(open({str(file)!r}, "rb").read()))
images = np.load("images.npy")
np.savez("found.npz", *[exported.call(part) for part in (images[:7], images[7:])])
assert not {{"flax", "flax_resnet", "train", "orbax"}} & set(sys.modules)
print(*exported.platforms)
"""
    assert python(code, tmp_path).split() == ["cpu", "cuda", "tpu"]
    found = np.concatenate(list(np.load(tmp_path / "found.npz").values()))
    wanted = run.predict(squares, prepared=True)
    assert wanted.max() > 0.2
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_the_snippet_of_the_model_card_runs(stablehlo, run):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
        stablehlo / "picture.jpg", quality=100
    )
    card = (stablehlo / "model_card.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    name, probability = python(code, stablehlo).split()
    wanted = run.predict(str(stablehlo / "picture.jpg"))[0]
    assert name == run.class_names[wanted.argmax()]
    assert float(probability) == pytest.approx(wanted.max(), abs=1e-4)
    for words in ("resnet20, 10 classes", "top1: 0.", "moving average", "1,437 images in train"):
        assert words in card
    assert run.config["dataset.data_dir"] not in card
    described = json.loads((stablehlo / "digits.stablehlo.json").read_text())
    assert described["class_names"] == list(run.class_names)


def test_weights_without_a_library_of_that_net_load_here(run, tmp_path):
    place = tmp_path / "digits.safetensors"
    told = "\n".join(exporting.export(run, "torchvision", str(place)))
    assert "torchvision has no such network" in told and "loaded it with flax_resnet" in told
    weights = load_weights(run.model, place)
    kernel = weights["params"]["stem_conv"]["kernel"]
    np.testing.assert_array_equal(kernel, run.variables["params"]["stem_conv"]["kernel"])


def test_a_file_that_answers_otherwise_is_an_error(run, tmp_path, monkeypatch):
    def write(run, path):
        """The weights, one of which came out wrong."""
        head = dict(run.variables["params"]["head"])
        head["bias"] = np.asarray(head["bias"]) + np.eye(10, dtype=np.float32)[3]
        params = run.variables["params"] | {"head": head}
        wrong = dataclasses.replace(run, variables=run.variables | {"params": params})
        writer(wrong, path)

    writer = exporting.WRITERS["torchvision"]
    monkeypatch.setitem(exporting.WRITERS, "torchvision", write)
    place = tmp_path / "digits.safetensors"
    with pytest.raises(RunError, match=r"more than 1e-05; it was left as .*\.bad"):
        list(exporting.export(run, "torchvision", str(place)))
    assert os.listdir(tmp_path) == ["digits.safetensors.bad"]


def test_what_is_not_a_number_is_a_difference():
    assert exporting.within({"probabilities": 1e-6, "logits": 1e-5})
    assert not exporting.within({"probabilities": float("nan")})


@pytest.mark.parametrize(
    "format, output, error",
    [
        ("torchvision", "a.pth", "must end in .safetensors"),
        ("huggingface", "a.safetensors", "must be model.safetensors"),
        ("stablehlo", ".", "is a folder"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(format, output, error):
    with pytest.raises(UsageError, match=error):
        exporting.check_output(format, output)


def test_a_runs_own_config_is_not_written_over(digits_run):
    with pytest.raises(UsageError, match=r"config\.json of its own"):
        exporting.check_output("huggingface", os.path.join(digits_run, "model.safetensors"))


@pytest.fixture(scope="module")
def resnet18(run):
    """The run with a network that other libraries have, too."""
    model = create_model("resnet18", num_classes=10)
    config = run.config | {"model.name": "resnet18"}
    return dataclasses.replace(run, model=model, variables=randomized(model), config=config)


@pytest.mark.peer
@pytest.mark.parametrize("format", ["torchvision", "timm", "huggingface"])
def test_pytorch_gives_the_same_logits(resnet18, squares, tmp_path, monkeypatch, format):
    peer({"huggingface": "transformers"}.get(format, format))
    peer("safetensors")
    file = tmp_path / "model.safetensors"
    list(exporting.export(resnet18, format, str(file)))
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", squares)
    operators = import_torchvision()
    library = {"huggingface": "transformers"}.get(format, format)
    code = loaders._torch(resnet18, library, file.name, 'images = np.load("images.npy")')
    found = {"np": np}
    exec(code, found)
    normalised = resnet18.preprocessing.normalize(squares)
    wanted = np.asarray(resnet18.model.apply(resnet18.variables, normalised))
    assert operators and wanted.std() > 0.1
    np.testing.assert_allclose(found["logits"], wanted, rtol=0, atol=1e-4 * abs(wanted).max())
    np.testing.assert_allclose(
        found["probabilities"], resnet18.probabilities(wanted), rtol=0, atol=1e-5
    )


def test_the_card_gives_the_metrics_of_the_weights_that_were_evaluated(run, tmp_path):
    row = {"step": run.step, "eval/top1": 0.5, "eval/loss": None}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")

    def metrics(weights, **config):
        config = run.config | {key.replace("_", "."): value for key, value in config.items()}
        asked = dataclasses.replace(run, path=str(tmp_path), weights=weights, config=config)
        return "\n".join(model_card._metrics(asked))

    told = metrics("ema", ema_decay=0.9, eval_ema=True)
    assert "top1: 0.5" in told and "loss: not a finite number" in told
    assert metrics("raw", ema_decay=0) == metrics("raw", ema_decay=0.9, eval_ema=False) == told
    for weights, averages in (("raw", True), ("ema", False)):
        assert "not evaluated" in metrics(weights, ema_decay=0.9, eval_ema=averages)


def test_any_name_of_a_file_and_of_a_class_fits_the_card(run):
    name = 'it\'s "x"\\\n.safetensors'
    own = loaders._own(run, "")
    for loader in (own, loaders.Loader("jax", loaders._stablehlo)):
        compile(model_card.snippet(run, loader, name), "card", "exec")
    compile(loaders._torch(run, "timm", name, ""), "card", "exec")
    asked = dataclasses.replace(run, class_names=("<b>a\nb</b>", "*c*_[d]|"))
    assert model_card._classes(asked) == r"&lt;b&gt;a b&lt;/b&gt;, \*c\*\_\[d\]\|"


def test_a_small_split_is_checked_with_each_image_once(run, digits_run, tmp_path):
    with open(os.path.join(digits_run, "config.json"), encoding="utf-8") as file:
        config = json.load(file) | {"dataset.eval_split": "test[:3]"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    images, real = exporting.real_squares(dataclasses.replace(run, path=str(tmp_path)))
    assert real and len(images) == len(np.unique(images, axis=0)) == 3


def test_the_process_that_checks_sees_no_other_folder_and_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    code = f"import sys\nassert {os.getcwd()!r} not in sys.path\nprobabilities = [0.5]"
    loader = loaders.Loader("numpy", lambda file, images: code)
    assert exporting._answers(loader, str(tmp_path), "x")["probabilities"] == [0.5]
    monkeypatch.setattr(exporting, "_SECONDS", 0.001)
    with pytest.raises(RunError, match="x was not loaded and computed with numpy within"):
        exporting._answers(loader, str(tmp_path), "x")
