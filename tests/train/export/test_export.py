"""Tests of train.export: the exported files are loaded by other programs."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnet import create_model, load_run, load_weights
from flax_resnet.decoding import ImageDecodeError
from flax_resnet.weights import find_preprocessing
from tests.flax_resnet.peers import import_torchvision, peer, randomized
from train.export import exporting, loaders, model_card
from train.export.output import check_output
from train.export.staging import staging_folder
from train.runtime.errors import RunError, UsageError
from train.runtime.files import locked


@pytest.fixture(scope="module")
def run(digits_run):
    return load_run(digits_run)


@pytest.fixture(scope="module")
def squares(run):
    pictures, real = exporting.verification_pictures(run)
    images = run.prepare(pictures)
    assert real and images.shape == (8, 8, 8, 3) and images.std() > 10
    return images


@pytest.fixture(scope="module")
def stablehlo(commands, digits_run, tmp_path_factory):
    """Export by the command and return the folder."""
    folder = tmp_path_factory.mktemp("export")
    process = commands.run(
        "train.export",
        *("--workdir", digits_run, "--format", "stablehlo"),
        *("--output", folder / "digits.stablehlo"),
    )
    assert process.returncode == 0, process.stderr
    assert "verified with jax" in process.stdout and "evaluation split" in process.stdout
    assert not process.stderr
    return folder


def python(code, cwd):
    """Return the output of a new process that does not see this project."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_stablehlo_matches_the_run_and_requires_only_jax(stablehlo, run, squares, tmp_path):
    np.save(tmp_path / "images.npy", squares)
    file = stablehlo / "digits.stablehlo"
    code = f"""
import sys, numpy as np
from jax import export
exported = export.deserialize(bytearray(open({str(file)!r}, "rb").read()))
images = np.load("images.npy")
np.savez("outputs.npz", *[exported.call(part) for part in (images[:7], images[7:])])
assert not {{"flax", "flax_resnet", "train", "orbax"}} & set(sys.modules)
print(*exported.platforms)
"""
    assert python(code, tmp_path).split() == ["cpu", "cuda", "tpu"]
    outputs = np.concatenate(list(np.load(tmp_path / "outputs.npz").values()))
    expected = run.predict(squares, prepared=True)
    assert expected.max() > 0.2
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)


def test_code_of_the_model_card_runs(stablehlo, run):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
        stablehlo / "picture.jpg", quality=100
    )
    card = (stablehlo / "digits.stablehlo.model_card.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    name, probability = python(code, stablehlo).split()
    expected = run.predict(str(stablehlo / "picture.jpg"))[0]
    assert name == run.class_names[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=1e-4)
    for words in ("resnet20, 10 classes", "top1: 0.", "moving average", "1,437 images in `train`"):
        assert words in card
    assert run.config["dataset.data_dir"] not in card
    metadata = json.loads((stablehlo / "digits.stablehlo.json").read_text())
    assert metadata["class_names"] == list(run.class_names)


def test_network_unknown_to_the_library_is_refused_before_anything_is_written(
    commands, digits_run, tmp_path
):
    for format, reason in (
        ("torchvision", "torchvision has no network 'resnet20'"),
        ("timm", "timm has no network 'resnet20'"),
        ("huggingface", "transformers has no ResNet with stem='cifar', shortcut='zero_pad'"),
    ):
        output = tmp_path / "new" / "model.safetensors"
        flags = ("--workdir", digits_run, "--format", format, "--output", output)
        done = commands.call("train.export", *flags)
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith(f"error: {reason}; formats for this run: stablehlo")
        assert done.stderr.count("\n") == 1 and not output.parent.exists()


@pytest.fixture
def without_libraries(monkeypatch):
    """Verify with flax_resnet, which is faster and works without PyTorch."""
    monkeypatch.setattr(loaders, "_import_error", lambda imports: "a test" * bool(imports))


@pytest.fixture(scope="module")
def narrow(run):
    """Return the run with a small network that transformers can load."""
    model = create_model("resnet18", num_classes=10, width=8)
    config = run.config | {"model.name": "resnet18"}
    return dataclasses.replace(run, model=model, variables=randomized(model), config=config)


def test_weights_are_published_after_their_companions(
    narrow, tmp_path, monkeypatch, without_libraries
):
    path = tmp_path / "model.safetensors"
    replace, moved = os.replace, []
    monkeypatch.setattr(os, "replace", lambda *paths: moved.append(paths[1]) or replace(*paths))
    output = "\n".join(exporting.export(narrow, "huggingface", str(path)))
    assert "not verified with transformers" in output and "verified with flax_resnet" in output
    published = [os.path.basename(file) for file in moved if os.path.dirname(file) == str(tmp_path)]
    assert published == [
        *("README.md", "config.json", "preprocessor_config.json"),
        *("model.safetensors.model_card.md", "model.safetensors.json", "model.safetensors"),
    ]
    assert sorted(os.listdir(tmp_path)) == sorted(published)
    weights = load_weights(narrow.model, path)  # the round trip is exact
    jax.tree.map(np.testing.assert_array_equal, weights, narrow.variables)


def test_second_export_overwrites_nothing_of_the_first(narrow, tmp_path, without_libraries):
    def export(format, name):
        check_output(format, str(tmp_path / name))
        list(exporting.export(narrow, format, str(tmp_path / name)))

    def contents():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    export("torchvision", "b.safetensors")
    first = contents()
    assert sorted(first) == ["b.safetensors", "b.safetensors.json", "b.safetensors.model_card.md"]
    export("huggingface", "model.safetensors")
    export("timm", "a.safetensors")  # which timm does not find in the folder
    second = contents()
    assert first.items() <= second.items() and len(second) == 3 + 6 + 3
    for format, name in (("timm", "model.safetensors"), ("timm", "b.safetensors")):
        with pytest.raises(UsageError, match=r"would overwrite .*choose another name or folder"):
            export(format, name)
    assert contents() == second
    export("huggingface", "model.safetensors")  # the same again, for instance of a later step
    assert contents().keys() == second.keys()


def test_exported_weights_bring_their_preprocessing_to_the_next_run(
    run, tmp_path, without_libraries
):
    path = tmp_path / "digits.safetensors"
    list(exporting.export(run, "torchvision", str(path)))
    found, expected = find_preprocessing(path), run.preprocessing
    assert found.source == "digits.safetensors.json" and not found.notes
    assert (found.mean, found.std) == (expected.mean, expected.std)
    assert found.image_size == 8 and round(8 / found.crop_pct) == expected.resize
    assert found.interpolation == expected.interpolation
    companion = tmp_path / "digits.safetensors.json"
    companion.write_text(companion.read_text().replace('"bilinear"', '"cubist"'))
    assert find_preprocessing(path).values() == {}
    [note] = find_preprocessing(path).notes
    assert "preprocessing.interpolation" in note and note.endswith("it is ignored")
    companion.write_text('{"preprocessing": "of another program"}')
    assert find_preprocessing(path) is None


def test_files_of_others_are_not_overwritten(tmp_path):
    for name in ("README.md", "config.json", "x.stablehlo", "x.stablehlo.json"):
        (tmp_path / name).write_text("{}")
    for format, name in (("huggingface", "model.safetensors"), ("stablehlo", "x.stablehlo")):
        with pytest.raises(UsageError, match="which is not of an earlier"):
            check_output(format, str(tmp_path / name))
    check_output("stablehlo", str(tmp_path / "y.stablehlo"))


def test_file_with_different_outputs_is_an_error(run, tmp_path, monkeypatch, without_libraries):
    def write(run, path):
        """Write the weights with one wrong value."""
        head = dict(run.variables["params"]["head"])
        head["bias"] = np.asarray(head["bias"]) + np.eye(10, dtype=np.float32)[3]
        params = run.variables["params"] | {"head": head}
        wrong = dataclasses.replace(run, variables=run.variables | {"params": params})
        writer(wrong, path)

    writer = exporting.WRITERS["torchvision"]
    monkeypatch.setitem(exporting.WRITERS, "torchvision", write)
    path = tmp_path / "digits.safetensors"
    with pytest.raises(RunError, match=r"more than 1e-05; the file was kept as .*\.bad"):
        list(exporting.export(run, "torchvision", str(path)))
    assert os.listdir(tmp_path) == ["digits.safetensors.bad"]
    (tmp_path / "digits.safetensors.bad").write_text("of an earlier export")
    with pytest.raises(RunError, match=r"kept as .*\.bad\.2"):
        list(exporting.export(run, "torchvision", str(path)))
    assert (tmp_path / "digits.safetensors.bad").read_text() == "of an earlier export"
    assert len(os.listdir(tmp_path)) == 2


def test_temporary_files_of_a_killed_export_are_removed(tmp_path):
    folders = [tmp_path / f".{name}.abcd1234" for name in ("w[1]", "w[1]", "w1", "w[1].x", "other")]
    folders[0] = folders[0].with_suffix(".running")
    for folder in folders:
        folder.mkdir()
        (folder / "w").write_text("half a file")
    for folder in folders[:3]:
        (folder / ".lock").touch()
    with locked(str(folders[0] / ".lock")), staging_folder(str(tmp_path / "w[1]")) as staging:
        assert os.listdir(staging) == [".lock"]
        assert {path for path in tmp_path.iterdir() if str(path) != staging} == {
            *folders[:1],
            *folders[2:],
        }
    assert not os.path.exists(staging)


def test_failed_export_leaves_no_folders(run, tmp_path, monkeypatch):
    def write(run, path):
        raise RunError("this network cannot be written")

    monkeypatch.setitem(exporting.WRITERS, "stablehlo", write)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        list(exporting.export(run, "stablehlo", str(tmp_path / "empty" / "new" / "er" / "file")))
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("change", [float("nan"), float("inf"), -3e-3])
def test_any_different_output_is_found(run, tmp_path, monkeypatch, output, batch, change):
    """In a batch of several images or of a single one; also if the other output is right."""
    loaded = []

    def outputs(loader, folder, name):
        images = np.load(os.path.join(folder, "images.npy"))
        logits = np.array(run.model.apply(run.variables, run.preprocessing.normalize(images)))
        computed = {"probabilities": np.array(run.probabilities(logits)), "logits": logits}
        if len(loaded) == batch:
            computed[output][-1, 3] += change
        loaded.append(len(images))
        return computed

    monkeypatch.setattr(exporting, "_outputs_in_subprocess", outputs)
    path = tmp_path / "digits.safetensors"
    with pytest.raises(RunError, match=r"the file was kept as .*\.bad"):
        list(exporting.export(run, "torchvision", str(path)))
    assert loaded == [7, 1] and os.listdir(tmp_path) == ["digits.safetensors.bad"]


@pytest.mark.parametrize("classes", [1, 11])
def test_outputs_of_another_shape_are_an_error(run, squares, tmp_path, monkeypatch, classes):
    outputs = {"probabilities": np.zeros((7, classes))}
    monkeypatch.setattr(exporting, "_outputs_in_subprocess", lambda *_: outputs)
    message = rf"probabilities of shape \(7, {classes}\) instead of \(7, 10\)"
    with pytest.raises(RunError, match=message):
        exporting.max_differences(run, None, str(tmp_path), "x", squares)


@pytest.mark.parametrize("scale, expected", [(1e4, 5e-5), (0, 0)])
def test_logits_are_compared_relative_to_the_largest(tmp_path, monkeypatch, scale, expected):
    """Those of a head that starts at zero are all zero."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    logits = images[:, 0, 0] * scale
    run = SimpleNamespace(
        model=SimpleNamespace(apply=lambda variables, images: images[:, 0, 0] * scale),
        variables={},
        preprocessing=SimpleNamespace(normalize=np.float32),
        probabilities=np.zeros_like,
        kind=None,
    )
    outputs = iter([logits[:1], logits[1:]])
    monkeypatch.setattr(
        exporting, "_outputs_in_subprocess", lambda *_: {"logits": next(outputs) * (1 + 5e-5)}
    )
    differences = exporting.max_differences(run, None, str(tmp_path), "x", images)
    assert differences == {"logits": pytest.approx(expected, rel=0.01)}


def test_images_are_random_if_none_of_the_split_can_be_decoded(run, monkeypatch):
    class Damaged:
        def __len__(self):
            return 3

        def decode(self, index, **options):
            raise ImageDecodeError("damaged")

    monkeypatch.setattr(exporting, "open_source", lambda *_: Damaged())
    images, real = exporting.verification_pictures(run)
    assert not real and len(np.unique(images, axis=0)) == 8


@pytest.mark.parametrize(
    "format, output, error",
    [
        ("torchvision", "a.pth", "must end in .safetensors"),
        ("huggingface", "a.safetensors", "must be model.safetensors"),
        ("stablehlo", ".", "is a folder"),
    ],
)
def test_invalid_output_names_are_rejected(format, output, error):
    with pytest.raises(UsageError, match=error):
        check_output(format, output)


def test_config_of_a_workdir_is_not_overwritten(digits_run):
    for format in ("huggingface", "timm"):
        with pytest.raises(UsageError, match=r"would overwrite .*config\.json"):
            check_output(format, os.path.join(digits_run, "model.safetensors"))
    for format in ("stablehlo", "torchvision"):  # they write no config.json
        check_output(format, os.path.join(digits_run, "model.safetensors"))


@pytest.fixture(scope="module")
def resnet18(run):
    """Return the run with a network that other libraries have too."""
    model = create_model("resnet18", num_classes=10)
    config = run.config | {"model.name": "resnet18"}
    return dataclasses.replace(run, model=model, variables=randomized(model), config=config)


@pytest.mark.peer
@pytest.mark.parametrize("format", ["torchvision", "timm", "huggingface"])
def test_pytorch_computes_the_same_logits(resnet18, squares, tmp_path, monkeypatch, format):
    peer({"huggingface": "transformers"}.get(format, format))
    peer("safetensors")
    file = tmp_path / "model.safetensors"
    list(exporting.export(resnet18, format, str(file)))
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", squares)
    operators = import_torchvision()
    library = {"huggingface": "transformers"}.get(format, format)
    code = loaders._torch_code(resnet18, library, file.name, 'images = np.load("images.npy")')
    namespace = {"np": np}
    exec(code, namespace)
    normalized = resnet18.preprocessing.normalize(squares)
    expected = np.asarray(resnet18.model.apply(resnet18.variables, normalized))
    assert operators and expected.std() > 0.1
    np.testing.assert_allclose(
        namespace["logits"], expected, rtol=0, atol=1e-4 * abs(expected).max()
    )
    np.testing.assert_allclose(
        namespace["probabilities"], resnet18.probabilities(expected), rtol=0, atol=1e-5
    )


def test_model_card_has_metrics_only_of_evaluated_weights(run, tmp_path):
    row = {"step": run.step, "eval/top1": 0.5, "eval/loss": None}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")

    def metrics(weights, decay, use_ema=True):
        config = run.config | {"ema.decay": decay, "eval.use_ema": use_ema}
        changed = dataclasses.replace(run, path=str(tmp_path), weights=weights, config=config)
        return "\n".join(model_card._metrics(changed, {"train": 3, "test": 2}))

    text = metrics("ema", 0.9)
    assert "top1: 0.5" in text and "loss: not finite" in text and "`test`" in text
    assert metrics("raw", 0) == metrics("raw", 0.9, use_ema=False) == text
    for weights, use_ema in (("raw", True), ("ema", False)):
        assert "did not evaluate these weights" in metrics(weights, 0.9, use_ema)


def test_model_card_escapes_file_and_class_names(run):
    name = 'it\'s "x"\\\n.safetensors'
    flax_resnet = loaders._flax_resnet_loader(run, "")
    for loader in (flax_resnet, loaders.loader_for_format(run, "stablehlo")):
        compile(model_card.snippet(run, loader, "stablehlo", name), "card", "exec")
    compile(loaders._torch_code(run, "timm", name, ""), "card", "exec")
    names = ("<b>a\nb</b>", "[c](http://d.e)", "`f``", "\u202eg", " h ", "i  j", "\u2028")
    changed = dataclasses.replace(run, class_names=names)
    # CommonMark: nothing inside of a code span is markup, and only an equal fence ends it.
    expected = (
        r"`<b>a\nb</b>`, `[c](http://d.e)`, ``` `f`` ```, `\u202eg`, `  h  `, `i  j`, `\u2028`"
    )
    assert model_card._classes(changed) == expected


def test_small_split_is_verified_with_each_image_once(run, digits_run, tmp_path):
    with open(os.path.join(digits_run, "config.json"), encoding="utf-8") as file:
        config = json.load(file) | {"dataset.eval_split": "test[:3]"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    images, real = exporting.verification_pictures(dataclasses.replace(run, path=str(tmp_path)))
    assert real and len(images) == len(np.unique(images, axis=0)) == 3


def test_verification_process_sees_no_other_folder_and_times_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    code = f"import sys\nassert {os.getcwd()!r} not in sys.path\nprobabilities = [0.5]"
    loader = loaders.Loader("numpy", lambda file, images: code)
    assert exporting._outputs_in_subprocess(loader, str(tmp_path), "x")["probabilities"] == [0.5]
    monkeypatch.setattr(exporting, "TIMEOUT_SECONDS", 0.001)
    with pytest.raises(RunError, match=r"timed out after 0\.001 s while verifying x with numpy"):
        exporting._outputs_in_subprocess(loader, str(tmp_path), "x")
