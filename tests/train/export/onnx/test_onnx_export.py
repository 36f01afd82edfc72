"""Exported ONNX files answer like the run, in processes without JAX."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import onnx
import pytest
from flax import linen as nn
from PIL import Image

from flax_resnet import create_model, load_run
from flax_resnet.calibration import Calibration
from flax_resnet.preprocessing import Preprocessing
from tests.flax_resnet.peers import randomized
from tests.train.export.onnx.conversion import BATCHES
from tests.train.export.onnx.conversion import run as outputs_of
from train.data.datasets import open_source
from train.export import exporting, output
from train.export.onnx import quantization, writing
from train.export.onnx.builder import UnsupportedNetworkError
from train.runtime.errors import RunError, UsageError
from train.workdir import run_files


@pytest.fixture(scope="module")
def run(digits_run):
    return load_run(digits_run)


@pytest.fixture(scope="module")
def test_images(run):
    """All images of the digits' test split, prepared, and their labels."""
    return evaluation_images(run, 360)


def evaluation_images(run, count):
    source = open_source(run_files.read_config(run.path).dataset, "test")
    assert len(source) >= count
    pairs = [source.decode(index) for index in range(count)]
    return run.prepare([image for image, _ in pairs]), np.array([label for _, label in pairs])


@pytest.fixture(scope="module")
def folder(commands, digits_run, tmp_path_factory):
    """Export by the command as ``digits.onnx`` and return the folder."""
    folder = tmp_path_factory.mktemp("onnx")
    export(commands, digits_run, folder / "digits.onnx")
    return folder


def export(commands, workdir, file, *flags, status=0):
    command = ("train.export", "--workdir", workdir, "--format", "onnx", "--output", file, *flags)
    process = commands.call(*command)
    assert process.returncode == status, process.stderr
    assert status or not process.stderr
    return process.stderr if status else process.stdout


def without_jax(code, cwd):
    """Return the output of a new process in which JAX and this project cannot be imported."""
    blocked = "import sys\nfor name in ('jax', 'jaxlib', 'flax', 'flax_resnet', 'train', 'onnx'):"
    code = f"{blocked}\n    sys.modules[name] = None\n{code}"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_file_answers_all_test_images_like_the_run_without_jax(folder, run, test_images):
    images, labels = test_images
    np.save(folder / "images.npy", images)
    code = f"""
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("digits.onnx", providers=["CPUExecutionProvider"])
parts = np.split(np.load("images.npy"), np.cumsum({BATCHES}))
np.save("outputs.npy", np.concatenate([session.run(None, {{"images": part}})[0] for part in parts]))
"""
    without_jax(code, folder)
    outputs, expected = np.load(folder / "outputs.npy"), run.predict(images, prepared=True)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)
    assert (outputs.argmax(1) == expected.argmax(1)).all()
    assert len(images) == 360 and (outputs.argmax(1) == labels).mean() > 0.5


def test_file_describes_itself(folder, run):
    model = onnx.load(folder / "digits.onnx")
    assert [opset.version for opset in model.opset_import] == [18]
    [images], [probabilities] = model.graph.input, model.graph.output
    dimensions = images.type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "N" and [d.dim_value for d in dimensions[1:]] == [8, 8, 3]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (images.name, probabilities.name) == ("images", "probabilities")
    metadata = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert metadata["class_names"] == list(run.class_names)
    assert metadata["activation"] == "softmax" and metadata["includes_preprocessing"] is True
    assert metadata["preprocessing"] == json.loads(
        json.dumps(dataclasses.asdict(run.preprocessing))
    )
    assert not os.path.exists(folder / "digits.onnx.data")


def test_code_of_the_model_card_runs(folder, run):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
        folder / "picture.jpg", quality=100
    )
    card = next(folder.glob("*model_card.md")).read_text()
    assert "part of the exported file, which takes uint8" in card
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    name, probability = without_jax(code, folder).split()
    expected = run.predict(str(folder / "picture.jpg"))[0]
    assert name == run.class_names[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=1e-4)


def test_raw_file_has_logits_of_normalized_images(commands, digits_run, run, tmp_path, test_images):
    images = test_images[0][:10]
    output = export(commands, digits_run, tmp_path / "raw.onnx", "--raw")
    assert "verified with onnxruntime" in output
    model = onnx.load(tmp_path / "raw.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.graph.output[0].name == "logits"
    logits = outputs_of(model, np.asarray(run.preprocessing.normalize(images)))
    expected = run.logits(images, prepared=True)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * abs(expected).max())
    card = next(tmp_path.glob("*model_card.md")).read_text()
    assert "part of the exported file" not in card
    assert "RGB images of that size, normalized as below\n" in card
    assert "- output: logits, of which softmax makes probabilities of 10 classes\n" in card
    Image.fromarray(images[0]).save(tmp_path / "picture.jpg", quality=100)
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    name, probability = without_jax(code, tmp_path).split()
    expected = run.predict(str(tmp_path / "picture.jpg"))[0]
    assert (name, float(probability)) == (
        run.class_names[expected.argmax()],
        pytest.approx(expected.max(), abs=1e-4),
    )


@pytest.mark.parametrize("raw", [False, True])
def test_several_classes_per_image_have_sigmoids(commands, shapes_run, tmp_path, raw):
    run = load_run(shapes_run)
    export(commands, shapes_run, tmp_path / "shapes.onnx", *["--raw"] * raw)
    pictures, _ = exporting.verification_pictures(run)
    images = run.prepare(pictures)
    network_input = np.asarray(run.preprocessing.normalize(images)) if raw else images
    outputs = outputs_of(onnx.load(tmp_path / "shapes.onnx"), network_input)
    expected = (run.logits if raw else run.predict)(images, prepared=True)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))
    assert raw or (outputs.sum(axis=1) > 1.01).any()  # independent probabilities


def test_probabilities_are_calibrated(run, test_images):
    images = test_images[0][:10]
    fields = dict(step=run.step, weights="ema", checkpoint="", activation="softmax", dataset="")
    fields |= dict(split="", seed=0, decisions={}, fitted=(), held_out=())
    calibrated = dataclasses.replace(run, calibration=Calibration(temperature=2.5, **fields))
    model = writing.make_model(calibrated)
    expected = np.asarray(jax.nn.softmax(run.logits(images, prepared=True) / 2.5))
    np.testing.assert_allclose(outputs_of(model, images), expected, rtol=0, atol=1e-5)
    metadata = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert metadata["temperature"] == 2.5


def test_images_with_five_channels_of_16_bits(run):
    fields = dict(mean=(0.4,) * 5, std=(0.2,) * 5, bits=16)
    preprocessing = Preprocessing(12, (8, 12), "bilinear", **fields)
    model = create_model("resnet20", num_classes=10, stage_sizes=(1,))
    variables = randomized(model, 8, 5)
    deep = dataclasses.replace(run, model=model, variables=variables, preprocessing=preprocessing)
    images = np.random.default_rng(0).integers(0, 2**16, (10, 8, 12, 5), np.uint16)
    expected = deep.predict(images, prepared=True)
    np.testing.assert_allclose(
        outputs_of(writing.make_model(deep), images), expected, rtol=0, atol=1e-5
    )
    assert expected.std(axis=0).max() > 1e-3


# int8 ------------------------------------------------------------------------------------------


def test_quantized_file_loses_at_most_one_point(commands, digits_run, run, tmp_path, test_images):
    images, labels = test_images
    output = export(commands, digits_run, tmp_path / "digits.onnx", "--int8")
    reported = re.search(r"int8: top1 (\S+) against (\S+) in float32 on 360 images", output)
    file = tmp_path / "digits.onnx"
    probabilities = outputs_of(file.read_bytes(), images)
    accuracy = (probabilities.argmax(1) == labels).mean()
    float_accuracy = (run.predict(images, prepared=True).argmax(1) == labels).mean()
    assert float_accuracy - accuracy <= 0.01
    assert [float(each) for each in reported.groups()] == pytest.approx(
        [accuracy, float_accuracy],
        abs=3e-3,  # batches of another size round differently
    )
    assert re.search(r"[\d.]+ times as fast here \([\d.]+ against [\d.]+ ms for 8 images", output)
    model = onnx.load(file)
    nodes = [node.op_type for node in model.graph.node]
    assert nodes.count("QuantizeLinear") > nodes.count("Conv") > 5
    kernels = [each for each in model.graph.initializer if len(each.dims) == 4]
    assert {each.data_type for each in kernels} == {onnx.TensorProto.INT8}
    assert "class_names" in {each.key for each in model.metadata_props}
    assert (
        "before the quantization; int8: top1" in next(tmp_path.glob("*model_card.md")).read_text()
    )
    assert sorted(p.name for p in tmp_path.glob("*.onnx")) == ["digits.onnx"]


def test_quantization_that_loses_accuracy_is_an_error(run, tmp_path, monkeypatch):
    def write(path, quantized, images, batch_size):
        """Write a network that always predicts the first class."""
        assert len(images) == 256 and images.dtype == np.uint8
        model = onnx.load(path)
        [bias] = [each for each in model.graph.initializer if list(each.dims) == [10]]
        values = onnx.numpy_helper.to_array(bias) + 100 * np.eye(10, dtype=np.float32)[0]
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(model, quantized)

    monkeypatch.setattr(quantization, "write_quantized", write)
    with pytest.raises(RunError, match="more than 5 points are lost; int8: top1 0"):
        list(exporting.export(run, "onnx", str(tmp_path / "digits.onnx"), int8=True))
    assert not list(tmp_path.iterdir())


def test_quantization_without_data_or_labels_names_what_it_needs(shapes_run, tmp_path, monkeypatch):
    def without_labels(*arguments):
        images, labels = sample(*arguments)
        return images, 0 * labels

    file, sample = tmp_path / "shapes.onnx", quantization.sample
    run = load_run(shapes_run)
    writing.write_onnx(run, str(file))
    monkeypatch.setattr(quantization, "sample", without_labels)
    with pytest.raises(RunError, match="--int8 needs labels to measure"):
        quantization.quantize(run, str(file), raw=False)
    monkeypatch.undo()
    dataset = run_files.read_config(shapes_run).dataset
    dataset.labels = str(tmp_path / "moved.csv")
    with pytest.raises(RunError, match=r"--int8 needs images of .*'train': .*moved.csv'"):
        sample(run, dataset, "train", 9)


def test_quantization_of_several_classes_reports_average_precision(shapes_run, tmp_path):
    file = tmp_path / "shapes.onnx"
    run = load_run(shapes_run)
    writing.write_onnx(run, str(file))
    result = quantization.quantize(run, str(file), raw=False)
    assert result.metric == "map" and 0 < result.float32 <= 1 and abs(result.loss) < 0.05
    assert result.bytes["int8"] < result.bytes["float32"]


# Refusals --------------------------------------------------------------------------------------


def test_wrong_usage_is_refused(commands, digits_run, tmp_path, monkeypatch):
    assert "must end in .onnx" in export(commands, digits_run, tmp_path / "a.pb", status=2)
    flags = ("--workdir", digits_run, "--format", "stablehlo", "--output", tmp_path / "a", "--int8")
    process = commands.call("train.export", *flags)
    assert process.returncode == 2 and "--raw and --int8 are for --format onnx" in process.stderr
    find_spec = output.find_spec
    monkeypatch.setattr(
        output, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name)
    )
    with pytest.raises(UsageError, match=r"needs onnxruntime: pip install 'flax-resnet\[onnx\]'"):
        output.check_output("onnx", str(tmp_path / "a.onnx"))
    assert not list(tmp_path.iterdir())


def test_network_that_cannot_be_converted_is_refused(run, tmp_path):
    class Sorting(nn.Module):
        num_classes: int = 10
        dtype: object = None
        axis_name: object = None

        @nn.compact
        def __call__(self, images, train=False):
            return nn.Dense(10, name="head")(jax.numpy.sort(images.mean((1, 2))))

    model = Sorting()
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    own = dataclasses.replace(run, model=model, variables=variables)
    with pytest.raises(UsageError, match=r"'sort' in Sorting, which .*; use --format stablehlo"):
        list(exporting.export(own, "onnx", str(tmp_path / "own.onnx")))
    assert not list(tmp_path.iterdir())


def test_weights_beyond_the_size_of_a_file_are_refused():
    leaf = jax.ShapeDtypeStruct((30_000, 20_000), np.float32)
    with pytest.raises(UnsupportedNetworkError, match=r"2\.4 GB of weights, and an ONNX file"):
        writing.check_size({"head": {"kernel": leaf}})
