"""train.evaluate: results, predictions, and evaluation on other data."""

import csv
import json
import shutil
import xml.etree.ElementTree as ElementTree

import cv2
import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from flax_resnet import load_run
from tests.train.stored_predictions import check_curves, check_metrics
from train import evaluate
from train.data.loader import DataLoader
from train.engine import run_evaluation
from train.engine.devices import Pmap
from train.loop import train
from train.reporting.report import run_report
from train.runtime.errors import RunError, UsageError
from train.runtime.signals import StopRequest
from train.workdir import run_files
from train.workdir.metrics_log import read_rows


def percent(share):
    return f"{100 * share:.2f} %"


@pytest.fixture
def command(digits_run, monkeypatch, capsys):
    """Run the command in this process, on four devices; return the JSON line and the summary."""

    def run(*arguments, path=digits_run):
        given = ["train.evaluate", "--workdir", path, *map(str, arguments)]
        monkeypatch.setattr("sys.argv", given)
        assert evaluate.main() == 0
        *summary, last = capsys.readouterr().out.splitlines()
        return json.loads(last), "\n".join(summary)

    return run


@pytest.fixture(scope="module")
def source(digits_run):
    return DataLoader(run_files.read_config(digits_run), "test", training=False).source


def save_digits(source, folder, names=range(10)):
    """Save the test images as PNGs, in a folder per class."""
    for index in range(len(source)):
        image, label = source.decode(index)
        place = folder / str(names[label])
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{index}.png"), image)


def test_results_are_printed_and_written_to_the_workdir(command, digits_run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(digits_run, path)
    result, summary = command(path=str(path))
    metrics = ["balanced_accuracy", "f1_macro", "kappa", "mcc", "auroc_macro"]
    metrics += ["average_precision_macro", "baseline"]
    assert list(result) == ["split", "examples", "top1", "top5", "loss", *metrics, "step"]
    [row] = [row for row in read_rows(digits_run) if row["step"] == 44 and "eval/top1" in row]
    assert result["top1"] == row["eval/top1"] and percent(result["top1"]) in summary
    folder = path / "evaluation" / "44_test_ema"
    written = json.loads((folder / "evaluation.json").read_text())
    assert result.items() <= written.items() and written["weights"] == "ema"
    low, high = written["top1_interval"]
    assert low < result["top1"] < high and f"{percent(low)} to {percent(high)}" in summary
    assert sum(one["examples"] for one in written["classes"]) == 360
    correct = sum(one["examples"] * one["recall"] for one in written["classes"])
    assert correct / 360 == pytest.approx(result["top1"])
    assert np.trace(written["confusion"]) / 360 == pytest.approx(result["top1"])
    assert sum(one["examples"] for one in written["reliability"]) == 360
    assert percent(written["expected_calibration_error"]) in summary
    confidences = [one["confidence"] for one in written["most_confident_mistakes"]]
    assert confidences == sorted(confidences, reverse=True)
    assert len(confidences) == min(24, round(360 - correct))
    drawing = ElementTree.parse(folder / "confusion.svg")
    counts = drawing.findall(".//{http://www.w3.org/2000/svg}tspan")
    assert sum(int(count.text) for count in counts) == 360
    texts = [element.text for element in drawing.iter() if element.text]
    assert "run · digits test: 360 images, step 44, EMA weights" in texts
    texts = (folder / "reliability.svg").read_text()
    assert f"ECE {percent(written['expected_calibration_error'])}" in texts
    with Image.open(folder / "mistakes.png") as image:
        assert image.width > 300


def test_written_predictions_match_the_run(command, digits_run, source, tmp_path):
    result, _ = command("--predictions", tmp_path / "p.npz", "--output", tmp_path)
    images = np.stack([source.decode(i)[0] for i in range(360)])
    labels = [source[i][1] for i in range(360)]
    expected = load_run(digits_run).predict(images)
    arrays = np.load(tmp_path / "p.npz")
    np.testing.assert_allclose(arrays["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(arrays["label"], labels)
    np.testing.assert_array_equal(arrays["record"], np.arange(360))
    assert (arrays["predicted"] == labels).mean() == result["top1"]

    result, _ = command("--predictions", tmp_path / "p.csv", "--output", tmp_path)
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"record {i}" for i in range(360)]
    assert [row["label"] for row in rows] == [str(label) for label in labels]
    probabilities = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(probabilities, expected.max(axis=1), atol=1e-5)
    assert sum(int(row["place"]) <= 5 for row in rows) / 360 == result["top5"]


@pytest.mark.parametrize(("count", "tta"), [(1, False), (4, True)])
def test_written_features_are_those_before_the_head(
    command, digits_run, source, tmp_path, monkeypatch, count, tta
):
    used = [jax.devices()[:count]]
    monkeypatch.setattr(run_evaluation, "make_devices", lambda parallel: Pmap(*used))
    files = ("--features", tmp_path / "f.npz", "--predictions", tmp_path / "p.npz")
    result, _ = command(*files, "--output", tmp_path, *(("--tta", "flip") if tta else ()))
    arrays = np.load(tmp_path / "f.npz")
    images = np.stack([source.decode(i)[0] for i in range(360)])
    run = load_run(digits_run)
    expected = run.features(images)
    if tta:
        squares = run.prepare(images)[:, :, ::-1]
        expected = (expected + run.features(squares, prepared=True)) / 2
    np.testing.assert_allclose(arrays["features"], expected, rtol=1e-4, atol=1e-5)
    assert arrays["features"].dtype == np.float32
    np.testing.assert_array_equal(arrays["label"], [source[i][1] for i in range(360)])
    assert arrays["file"].tolist() == [f"record {i}" for i in range(360)]
    head = run.variables["params"]["head"]
    predicted = (arrays["features"] @ head["kernel"] + head["bias"]).argmax(axis=1)
    assert (predicted == arrays["label"]).mean() == pytest.approx(result["top1"], abs=1 / 360)
    assert "features" not in np.load(tmp_path / "p.npz")


@pytest.mark.parametrize("count", [1, 4])
def test_metrics_equal_those_of_scikit_learn_on_stored_predictions(
    command, digits_run, tmp_path, monkeypatch, count
):
    """On one device and on four; test_distributed_runs.py has two processes."""
    path = tmp_path / "run"
    shutil.copytree(digits_run, path)
    config = json.loads((path / "config.json").read_text())
    config["eval.metrics"] = ["top3"]
    (path / "config.json").write_text(json.dumps(config))
    used = [jax.devices()[:count]]
    monkeypatch.setattr(run_evaluation, "make_devices", lambda parallel: Pmap(*used))
    result, summary = command("--predictions", tmp_path / "p.npz", path=str(path))
    check_metrics(result, tmp_path / "p.npz")
    (folder,) = (path / "evaluation").iterdir()
    written = json.loads((folder / "evaluation.json").read_text())
    trials = scipy.stats.binomtest(round(360 * result["top3"]), 360)
    interval = trials.proportion_ci(method="wilson")
    assert written["top3_interval"] == pytest.approx(list(interval), abs=1e-9)
    assert f"top-3        {percent(result['top3']):>8}  95 % confidence interval" in summary
    row = f'<th scope="row">top-3</th><td class=n>{percent(result["top3"])}</td>'
    assert row in (path / "report.html").read_text()
    part = run_report.read_parts(str(path))["evaluations"][folder.name.partition("_")[2]]
    check_curves(part["rankings"], tmp_path / "p.npz")
    low, high = written["kappa_interval"]
    assert low < result["kappa"] < high
    assert f"{result['kappa']:.4f}  95 % interval (bootstrap) {low:.4f} to {high:.4f}" in summary


def test_tta_flip_averages_logits_with_mirror_images(command, digits_run, source, tmp_path):
    result, _ = command("--tta", "flip", "--predictions", tmp_path / "p.npz", "--output", tmp_path)
    assert result["tta"] == "flip" and result["examples"] == 360
    run = load_run(digits_run)
    images = np.stack([source.decode(i)[0] for i in range(360)])
    logits = (run.logits(images) + run.logits(images[:, :, ::-1])) / 2
    expected = np.asarray(run.probabilities(logits))
    np.testing.assert_allclose(np.load(tmp_path / "p.npz")["probabilities"], expected, atol=1e-5)


def test_another_split(command, tmp_path):
    result, _ = command("--split", "train[:100]", "--output", tmp_path)
    assert result["split"] == "train[:100]" and result["examples"] == 100
    with pytest.raises(UsageError, match="no images in the split 'nowhere'"):
        command("--split", "nowhere", "--output", tmp_path)


def test_other_data_with_the_same_classes(command, source, tmp_path):
    usual, _ = command("--output", tmp_path / "one")
    save_digits(source, tmp_path / "digits")
    given = ("--dataset", "folder", "--data_dir", tmp_path / "digits")
    result, _ = command(*given, "--output", tmp_path / "other")
    assert (result["dataset"], result["split"], result["examples"]) == ("folder", "all", 360)
    assert result["top1"] == usual["top1"]
    assert result["loss"] == pytest.approx(usual["loss"], rel=1e-5)
    mistakes = json.loads((tmp_path / "other/evaluation.json").read_text())
    for mistake in mistakes["most_confident_mistakes"]:
        assert mistake["image"].startswith(f"{mistake['label']}/")


def test_a_corrupt_image_changes_no_result_and_no_other_prediction(command, source, tmp_path):
    """As if it were not there, also for the images after it."""
    outcomes = []
    for kind in ("removed", "corrupt"):
        folder = tmp_path / kind
        save_digits(source, folder / "digits")
        first = min((folder / "digits").glob("*/*.png"))
        if kind == "corrupt":
            first.write_bytes(b"broken")
        else:
            first.unlink()
        given = ("--dataset", "folder", "--data_dir", folder / "digits", "--output", folder / "out")
        result, _ = command(*given, "--predictions", folder / "p.csv")
        outcomes.append((result, (folder / "p.csv").read_text().splitlines()))
    (removed, expected), (result, rows) = outcomes
    assert result["bad"] == 1 and "bad" not in removed
    assert result["examples"] == 359 and len(rows) == 360
    assert (result["top1"], result["top5"]) == (removed["top1"], removed["top5"])
    assert result["loss"] == pytest.approx(removed["loss"], rel=1e-5)
    assert [row.split(",")[:3] for row in rows] == [row.split(",")[:3] for row in expected]


def test_data_with_other_classes_is_rejected(command, source, tmp_path):
    save_digits(source, tmp_path / "digits", names=[*range(9), "nine"])
    with pytest.raises(RunError, match="unknown: nine; missing: 9"):
        command("--dataset", "folder", "--data_dir", tmp_path / "digits")


def test_invalid_arguments_are_rejected_before_evaluation(command, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    for arguments, words in (
        (("--predictions", "p.txt"), r"\.csv or \.npz"),
        (("--predictions", folder), "is a folder"),
        (("--output", ""), "--output is empty"),
        (("--output", tmp_path / "file"), "is a file"),
        (("--dataset", "folder"), "--data_dir"),
        (("--dataset", "cifar10"), "unknown data source"),
    ):
        with pytest.raises(UsageError, match=words):
            command(*arguments)
    for flag in ("--output", "--predictions"):
        with pytest.raises(RunError, match=r"cannot write .*below.npz: '.*file' is not a folder"):
            command(flag, tmp_path / "file" / "below.npz")


def test_more_than_a_thousand_outputs(command, digits_config, tmp_path):
    digits_config.model.update(num_classes=1001, stage_sizes=(1,))
    digits_config.num_steps = 1
    train(digits_config, str(tmp_path), StopRequest())
    result, _ = command(path=str(tmp_path))
    assert result["examples"] == 360
    [folder] = (tmp_path / "evaluation").iterdir()
    assert "confusion" not in json.loads((folder / "evaluation.json").read_text())
    assert "confusion matrix" in (tmp_path / "report.html").read_text()
