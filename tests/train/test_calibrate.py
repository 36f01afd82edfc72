"""Calibrated runs: train.evaluate --calibrate and --decide, train.predict and train.export."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import precision_score, recall_score

from flax_resnet import load_run
from flax_resnet.calibration import read_calibration, write_calibration
from train.data.datasets import open_source
from train.data.folds import assign_folds
from train.engine.evaluation import Evaluated
from train.export.calibrated import temperature_metadata, with_temperature_in_head
from train.export.loaders import loader_for_format
from train.export.metadata import calibration_metadata
from train.export.model_card import model_card
from train.export.stablehlo import write_stablehlo
from train.reporting.calibration.results import calibrate
from train.runtime.errors import RunError
from train.tasks.decisions import DecisionRequest
from train.tasks.predictions import Predictions
from train.tasks.temperature import fit_temperature
from train.workdir.run_files import read_config

CLASSES = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def calibrated(commands, digits_run, tmp_path_factory):
    """A calibrated copy of the run, the results of the command and the predictions before it."""
    folder = tmp_path_factory.mktemp("calibrated")
    path = folder / "run"
    shutil.copytree(digits_run, path)
    done = commands.call(
        *("train.evaluate", "--workdir", path, "--calibrate", "--output", folder / "out"),
        *("--decide", "3:recall=0.9", "--decide", "8=0.25", "--predictions", folder / "p.npz"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    return path, result, dict(np.load(folder / "p.npz")), done.stdout


@pytest.fixture(scope="module")
def sigmoid_run(commands, digits_run, tmp_path_factory):
    """A calibrated copy of the run whose probabilities are sigmoids of the logits."""
    path = tmp_path_factory.mktemp("sigmoid") / "run"
    shutil.copytree(digits_run, path)
    for file, key, value in (
        ("config.json", "loss", "binary_cross_entropy"),
        ("run.json", "probabilities", "sigmoid"),
    ):
        content = json.loads((path / file).read_text())
        (path / file).write_text(json.dumps(content | {key: value}))
    done = commands.call("train.evaluate", "--workdir", path, "--calibrate", "--output", path / "o")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def source(digits_run):
    """The test images."""
    return open_source(read_config(digits_run).dataset, "test")


@pytest.fixture(scope="module")
def squares(digits_run, source):
    """The test images as the network gets them."""
    decoded = [source.decode(index)[0] for index in range(len(source))]
    return load_run(digits_run).prepare(decoded)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8))
    return path


def halves(labels, seed=0):
    names = [f"record {index}" for index in range(len(labels))]
    first = assign_folds(names, labels, None, 2, seed) == 0
    return first, ~first


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_results_are_those_of_the_held_out_half(calibrated):
    _, result, arrays, stdout = calibrated
    measured, labels = result["calibration"], arrays["label"]
    first, other = halves(labels)
    assert measured["fitted"] == first.sum() == 180 and measured["examples"] == 180
    counts = [np.bincount(labels[half], minlength=10) for half in (first, other)]
    assert abs(counts[0] - counts[1]).max() <= 1
    probabilities = softmax(arrays["logits"][other] / measured["temperature"])
    own = probabilities[np.arange(180), labels[other]]
    assert measured["after"]["nll"] == pytest.approx(-np.log(own).mean(), abs=1e-5)
    assert measured["after"]["nll"] < measured["before"]["nll"]
    assert measured["after"]["top1"] == measured["before"]["top1"]
    assert measured["after"]["top1"] == (arrays["predicted"] == labels)[other].mean()
    sets = measured["sets"]
    assert sets["measured"] == pytest.approx((own >= sets["threshold"]).mean())
    for name, one in measured["decisions"].items():
        index = CLASSES.index(name)
        assert f"{name} from {one['threshold']:.4g}" in stdout
        assert one["recall_interval"][0] <= one["recall"] <= one["recall_interval"][1]
        decided = np.array([decide(row, measured["decisions"]) for row in probabilities])
        truth, chosen = labels[other] == index, decided == index
        assert one["recall"] == pytest.approx(recall_score(truth, chosen))
        assert one["precision"] == pytest.approx(precision_score(truth, chosen))
    in_first = softmax(arrays["logits"][first] / measured["temperature"])[:, 3]
    threshold = measured["decisions"]["3"]["threshold"]
    assert (in_first >= threshold)[labels[first] == 3].mean() >= 0.9


def test_report_and_results_have_calibration_and_abstention(calibrated):
    path, result, _, stdout = calibrated
    folder = path.parent / "out"
    written = json.loads((folder / "evaluation.json").read_text())
    last = written["abstention"][-1]
    assert last["coverage"] == 1 and last["accuracy"] == pytest.approx(result["top1"])
    assert written["calibration"] == result["calibration"]
    assert (folder / "abstention.svg").exists()
    page = (folder / "report.html").read_text()
    lines = [line for line in stdout.splitlines() if line.startswith("calibrated")]
    assert len(lines) == 4 and "<h3>Abstention</h3>" in page
    assert all(line.removeprefix("calibrated").strip() in page for line in lines)


def decide(row, decisions):
    """Return the decided class of one image."""
    reached = [c for c in range(10) if str(c) in decisions]
    reached = [c for c in reached if row[c] >= decisions[str(c)]["threshold"]]
    return max(reached or [c for c in range(10) if str(c) not in decisions], key=row.__getitem__)


def test_no_image_has_another_answer(calibrated, digits_run, squares):
    path, result, arrays, _ = calibrated
    run, plain = load_run(str(path)), load_run(digits_run)
    assert plain.calibration is None and plain.temperature is None
    assert run.temperature == result["calibration"]["temperature"]
    before, after = (each.predict(squares, prepared=True) for each in (plain, run))
    np.testing.assert_array_equal(before.argmax(axis=1), arrays["predicted"])
    np.testing.assert_array_equal(after.argmax(axis=1), arrays["predicted"])
    np.testing.assert_allclose(before, softmax(arrays["logits"]), atol=1e-5)
    np.testing.assert_allclose(after, softmax(arrays["logits"] / run.temperature), atol=1e-5)
    assert abs(after - before).max() > 0.01


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_an_exported_network_has_calibrated_probabilities(
    calibrated, sigmoid_run, squares, kind, tmp_path
):
    run = load_run(str(calibrated[0] if kind == "softmax" else sigmoid_run))
    assert run.activation == kind and abs(run.temperature - 1) > 0.01
    scaled = run.logits(squares, prepared=True) / run.temperature
    expected = softmax(scaled) if kind == "softmax" else expit(scaled)
    write_stablehlo(run, str(tmp_path / "net"))
    exported = jax.export.deserialize(bytearray((tmp_path / "net").read_bytes()))
    np.testing.assert_allclose(exported.call(squares), expected, atol=1e-5)
    np.testing.assert_allclose(run.predict(squares, prepared=True), expected, atol=1e-5)


@pytest.mark.parametrize("format", ["timm", "huggingface"])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_weights_for_libraries_without_temperatures_have_it_in_the_head(
    calibrated, sigmoid_run, squares, kind, format
):
    run = load_run(str(calibrated[0] if kind == "softmax" else sigmoid_run))
    written = with_temperature_in_head(run, format)
    logits = written.logits(squares, prepared=True)
    expected = run.logits(squares, prepared=True) / run.temperature
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert written.temperature is None  # not divided again
    card = model_card(
        run, loader_for_format(written, format), format, "net", "", {"date": "2026-02-03"}
    )
    assert "the weights and the bias of the head in the exported file are divided by it" in card
    assert "logits / " not in card
    loader = loader_for_format(written, format)
    assert temperature_metadata(run, format, loader) == {"temperature_in_file": True}
    assert with_temperature_in_head(run, "torchvision") is run


def test_predict_has_calibrated_sigmoids(commands, sigmoid_run, picture):
    flags = ("--workdir", sigmoid_run, "--topk", 10)
    [line] = commands.call("train.predict", *flags, "--json", picture).stdout.splitlines()
    run = load_run(str(sigmoid_run))
    [logits] = run.logits(picture)
    probabilities = {row["class"]: row["probability"] for row in json.loads(line)["classes"]}
    expected = expit(logits / run.temperature)
    np.testing.assert_allclose([probabilities[name] for name in CLASSES], expected, atol=1e-5)


@pytest.fixture(scope="module")
def evaluated(calibrated, digits_run, source):
    """Return the evaluation of the first images, with groups of the images or without."""

    def first_images(count, groups=None):
        fields = {f.name: calibrated[2].get(f.name) for f in dataclasses.fields(Predictions)}
        fields = {k: v if v is None else v[:count] for k, v in fields.items()}
        predictions = Predictions(**fields | {"outputs": 10})
        loader = SimpleNamespace(source=dataclasses.replace(source, groups=groups))
        return Evaluated({"step": 44}, predictions, loader, read_config(digits_run), None, None)

    return first_images


def test_groups_are_on_one_side(calibrated, digits_run, evaluated):
    """A probability in the stored halves belongs to one image: that of its true class."""
    labels, logits = calibrated[2]["label"], calibrated[2]["logits"]
    groups = np.array([f"writer {index // 7}" for index in range(len(labels))])
    found = calibrate(digits_run, evaluated(len(labels), groups), True, []).calibration
    own = softmax(logits.astype(np.float64) / found.temperature)
    own = np.array([float(f"{p:.9g}") for p in own[np.arange(len(labels)), labels]])
    assert len(np.unique(own)) == len(own)
    fitted = np.isin(own, found.fitted)
    assert np.isin(own, found.held_out).tolist() == (~fitted).tolist()
    assert abs(fitted.mean() - 0.5) < 0.05
    for group in np.unique(groups):
        assert len(set(fitted[groups == group])) == 1


@pytest.mark.parametrize(
    ("split", "result", "warned"),
    [("test", {}, 0), ("train", {}, 1), ("train[:360]", {}, 1), ("train", {"dataset": "x"}, 0)],
)
def test_training_images_are_a_warning(calibrated, digits_run, source, split, result, warned):
    _, _, arrays, _ = calibrated
    fields = {f.name: arrays.get(f.name) for f in dataclasses.fields(Predictions)}
    predictions = Predictions(**fields | {"outputs": 10})
    loader = SimpleNamespace(source=dataclasses.replace(source, split=split))
    config = read_config(digits_run)
    evaluated = Evaluated({"step": 44, **result}, predictions, loader, config, None, None)
    warnings = calibrate(digits_run, evaluated, True, []).warnings
    assert len(warnings) == warned
    assert all(text.startswith("the network was trained on 'train") for text in warnings)


def test_too_few_images_are_an_error(digits_run, evaluated):
    with pytest.raises(RunError, match="needs at least 20 images, but 'test' has 19"):
        calibrate(digits_run, evaluated(19), True, [])
    assert calibrate(digits_run, evaluated(20), True, []).measured["fitted"] == 10


def test_without_mistakes_the_probabilities_stay_those_of_the_network(digits_run, evaluated):
    without = evaluated(360)
    fields = vars(without.predictions) | {"label": without.predictions.logits.argmax(axis=1)}
    without = dataclasses.replace(without, predictions=Predictions(**fields))
    found = calibrate(digits_run, without, True, [DecisionRequest("3", "recall", 0.95)])
    assert found.calibration.temperature is None
    assert found.calibration.decisions["3"].threshold > 0
    assert found.calibration.description == (
        f"without a temperature, from {len(found.calibration.fitted)} images of digits test"
    )
    assert found.measured["before"] == found.measured["after"]
    [line] = (line for line in found.lines if "nearly all predictions for the fitted" in line)
    assert "stay the network's own" in line


def test_sets_cover_as_requested_over_50_resplits(calibrated):
    """On the network's own probabilities, with a temperature of each split."""
    _, _, arrays, _ = calibrated
    labels, logits = arrays["label"], arrays["logits"].astype(np.float64)
    calibration = read_calibration(str(calibrated[0]), 44, "ema", "softmax", CLASSES)[0]
    shares = []
    for seed in range(50):
        first, other = halves(labels, seed)
        temperature = fit_temperature(logits[first], labels[first], "softmax")
        own = softmax(logits / temperature)[np.arange(len(labels)), labels]
        split = dataclasses.replace(calibration, fitted=np.sort(own[first]).tolist())
        shares.append((own[other] >= split.set_threshold(0.9)).mean())
    # A split's coverage has a beta-binomial distribution with a deviation of 3.1 %.
    assert abs(np.mean(shares) - 0.9) < 0.03 and np.std(shares) < 0.045


def test_predict_has_decisions_and_sets(commands, calibrated, picture, tmp_path):
    path, result, *_ = calibrated
    files = (picture, tmp_path / "missing.png")
    flags = ("--workdir", path, "--coverage", 0.8, "--topk", 10)
    done = commands.call("train.predict", *flags, "--csv", *files)
    note = f"temperature {result['calibration']['temperature']:.4g}, fitted on 180 images of digits"
    assert note in done.stderr and "of 180 other images" in done.stderr
    *rows, failed = csv.DictReader(io.StringIO(done.stdout))
    probabilities = {row["class"]: float(row["probability"]) for row in rows}
    threshold = load_run(str(path)).calibration.set_threshold(0.8)
    expected = [name for name, p in probabilities.items() if p >= threshold]
    row = np.array([probabilities[name] for name in CLASSES])
    decision = str(decide(row, result["calibration"]["decisions"]))
    assert {(r["decision"], r["set"]) for r in rows} == {(decision, "|".join(expected))}
    assert failed["error"] and failed["decision"] == failed["set"] == ""
    [line, error] = commands.call("train.predict", *flags, "--json", *files).stdout.splitlines()
    line = json.loads(line)
    assert line["decision"] == decision and line["set"] == expected
    assert json.loads(error).keys() == {"file", "error"}
    table = tmp_path / "t.csv"
    table.write_text(f"image,set\n{picture},x\n{tmp_path}/none.png,y\n")
    done = commands.call("train.predict", *flags[:4], "--csv", table)
    header, one, none = csv.reader(io.StringIO(done.stdout))
    assert header == ["image", "set", "predicted", "probability", "decision", "run_set", "error"]
    assert one[4:] == [decision, "|".join(expected), ""] and none[2:6] == [""] * 4 and none[6]


def test_another_checkpoint_is_not_calibrated(commands, calibrated, digits_run, picture):
    path, *_ = calibrated
    for flags in (("--step", 22), ("--weights", "raw")):
        given = ("train.predict", *flags, picture, "--workdir")
        done, plain = commands.call(*given, path), commands.call(*given, digits_run)
        assert done.stdout == plain.stdout and done.returncode == 0
        assert done.stderr.startswith("warning: ") and "are not calibrated; " in done.stderr
    assert load_run(str(path), step=22).calibration is None
    done = commands.call(
        "train.predict", "--workdir", path, "--step", 22, "--coverage", 0.9, picture
    )
    assert done.returncode == 2 and "--coverage needs a calibrated checkpoint" in done.stderr


def test_a_new_training_of_the_same_step_is_not_calibrated(calibrated, tmp_path, caplog):
    path, *_ = calibrated
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    found, _ = read_calibration(str(path), 44, "ema", "softmax", CLASSES)
    write_calibration(str(copy), dataclasses.replace(found, checkpoint="of another training"))
    assert load_run(str(copy)).calibration is None
    assert "44_ema.json is of another training of step 44" in caplog.text


def test_a_changed_file_ends_commands_with_one_line(commands, calibrated, picture, tmp_path):
    path, *_ = calibrated
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = copy / "calibration" / "44_ema.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    for command, *flags in (
        ("train.predict", picture),
        ("train.export", "--format", "timm", "--output", tmp_path / "a.safetensors"),
        ("train.evaluate", "--decide", "3=0.5", "--output", tmp_path / "out"),
    ):
        done = commands.call(command, "--workdir", copy, *flags)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith(f"error: cannot read {file}: it was changed: its checksum differs")


def test_wrong_requests_end_before_the_evaluation(commands, calibrated, tmp_path, monkeypatch):
    path, *_ = calibrated
    monkeypatch.setattr("train.engine.run_evaluation.evaluate_run", None)
    before = Path(path, "calibration", "44_ema.json").read_bytes()
    for flags, status, message in (
        (("--decide", "cat=0.5"), 2, "the run has no class 'cat'; it has 0, 1, 2"),
        (("--decide", "3=0.5", "--decide", "3=0.6"), 2, "--decide has two thresholds for '3'"),
        (("--calibrate", "--tta", "flip"), 2, "cannot be combined with --tta"),
    ):
        done = commands.call("train.evaluate", "--workdir", path, *flags, "--output", tmp_path)
        assert done.returncode == status and message in done.stderr
    assert Path(path, "calibration", "44_ema.json").read_bytes() == before


@pytest.mark.parametrize(
    "format, code, in_file",
    [("torchvision", "logits / ", False), ("stablehlo", "predict(images)", True)],
)
def test_exports_and_model_card_have_the_temperature(calibrated, format, code, in_file):
    path, result, *_ = calibrated
    run = load_run(str(path))
    loader = loader_for_format(run, format)
    card = model_card(run, loader, format, "net", "fine", {"date": "2026-02-03"})
    temperature = result["calibration"]["temperature"]
    assert f"calibrated: `temperature {temperature:.4g}, fitted on 180 images" in card
    assert "decide `3` from a probability of" in card and "(for `recall=0.9`)" in card
    assert code + (repr(temperature) if code.endswith("/ ") else "") in card
    assert temperature_metadata(run, format, loader) == {"temperature_in_file": in_file}
    assert calibration_metadata(run) == {
        "temperature": temperature,
        "decision_thresholds": {
            name: one["threshold"] for name, one in result["calibration"]["decisions"].items()
        },
    }
