"""Runs with several classes per image: calibrated, evaluated, used for predictions, exported."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)

from flax_resnet import load_run
from tests.conftest import free_port, train_on_shapes
from tests.train.shapes import NAMES
from tests.train.stored_predictions import check_label_metrics
from train.compare.cross_validation import cross_validations
from train.compare.runs import read
from train.compare.tables import results_table
from train.data.folds import assign_folds
from train.reporting.calibration.answers import make_answers
from train.tasks.multi_label_metrics import random_average_precision


@pytest.fixture(scope="module")
def calibrated(commands, shapes_run, tmp_path_factory):
    """A calibrated copy of the run, the results of the command and the predictions before it."""
    folder = tmp_path_factory.mktemp("calibrated")
    path = folder / "run"
    shutil.copytree(shapes_run, path)
    done = commands.call(
        *("train.evaluate", "--workdir", path, "--calibrate", "--decide", "cross:recall=0.9"),
        *("--predictions", folder / "p.npz"),
    )
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout.splitlines()[-1]), dict(np.load(folder / "p.npz")), done


def ece(probabilities, labels):
    """Return the expected calibration error of Guo et al. 2017 with 15 bins, bin by bin."""
    gaps = []
    for k in range(15):
        low, high = k / 15, (k + 1) / 15
        inside = (probabilities > low) & (probabilities <= high)
        if inside.any():
            gap = abs(probabilities[inside].mean() - labels[inside].mean())
            gaps.append(gap * inside.mean())
    return sum(gaps)


def test_thresholds_are_fitted_on_one_half_and_measured_on_the_other(calibrated):
    _, result, arrays, done = calibrated
    measured, labels = result["calibration"], arrays["label"]
    logits = arrays["logits"].astype(float)
    first = assign_folds(arrays["file"].tolist(), labels, None, 2, 0) == 0
    assert measured["fitted"] == first.sum() and measured["examples"] == (~first).sum()

    def nll(temperature, half=first):
        return log_loss(labels[half].ravel(), expit(logits[half] / temperature).ravel())

    best = minimize_scalar(nll, bounds=(0.02, 50), method="bounded", options={"xatol": 1e-9})
    temperature = measured["temperature"]
    assert temperature == pytest.approx(best.x, rel=1e-3)
    fitted, other = (expit(logits[half] / temperature) for half in (first, ~first))
    for k, name in enumerate(NAMES):
        one, truth = measured["decisions"][name], labels[first, k]
        predicted = fitted[:, k] >= one["threshold"]
        if one["target"] == "F1":
            scores = [f1_score(truth, fitted[:, k] >= t) for t in np.unique(fitted[:, k])]
            assert f1_score(truth, predicted) == pytest.approx(max(scores), abs=1e-12)
        else:
            assert name == "cross" and recall_score(truth, predicted) >= 0.9
        chosen = other[:, k] >= one["threshold"]
        assert one["recall"] == pytest.approx(recall_score(labels[~first, k], chosen))
        assert one["precision"] == pytest.approx(precision_score(labels[~first, k], chosen))
        assert f"{name} from {one['threshold']:.4g}" in done.stdout
    thresholds = [measured["decisions"][name]["threshold"] for name in NAMES]
    for key, t, cuts in (("before", 1, 0.5), ("after", temperature, thresholds)):
        p = expit(logits[~first] / t)
        assert measured[key]["nll"] == pytest.approx(nll(t, ~first), abs=1e-6)
        assert measured[key]["ece"] == pytest.approx(ece(p, labels[~first]), abs=1e-9)
        for average in ("macro", "micro"):
            score = f1_score(labels[~first], p >= cuts, average=average)
            assert measured[key][f"f1_{average}"] == pytest.approx(score)


def test_metrics_of_one_and_four_devices_and_two_processes_are_those_of_scikit_learn(
    commands, shapes_run, tmp_path
):
    arguments = ("train.evaluate", "--workdir", shapes_run, "--output", tmp_path, "--predictions")
    four = commands.call(*arguments, tmp_path / "four.npz")
    one = commands.start(*arguments, tmp_path / "one.npz")
    where = ("--coordinator", f"localhost:{free_port()}", "--num_processes", 2, "--process_id")
    two = [commands.start(*arguments, tmp_path / "two.npz", *where, k) for k in range(2)]
    outputs = [process.communicate(timeout=300) for process in (one, *two)]
    assert [process.returncode for process in (one, *two)] == [0] * 3, outputs
    found = []
    for name, text in (("four", four.stdout), ("one", outputs[0][0]), ("two", outputs[1][0])):
        result = json.loads(text.splitlines()[-1])
        found.append(check_label_metrics(result, tmp_path / f"{name}.npz"))
    for probabilities in found[1:]:
        np.testing.assert_allclose(probabilities, found[0], atol=1e-5)


def test_the_report_has_the_chosen_top_k(shapes_run):
    arrays = np.load(f"{shapes_run}/held_out.npz")
    best = np.argsort(-arrays["probabilities"][:, : len(NAMES)], axis=1)[:, :2]
    hits = np.take_along_axis(arrays["label"], best, axis=1).any(axis=1)
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    low, high = 100 * interval.low, 100 * interval.high
    expected = f"in {100 * hits.mean():.2f} % ({low:.2f} % to {high:.2f} %)."
    text = Path(shapes_run, "report.html").read_text()
    assert f"One of the 2 most probable classes is one of the image&#x27;s {expected}" in text


def test_data_with_one_class_per_image_are_refused_in_one_line(
    commands, shapes, shapes_run, tmp_path
):
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(shapes / "000.png", tmp_path / "data" / name)
    other = ("--dataset", "folder", "--data_dir", tmp_path / "data")
    done = commands.call("train.evaluate", "--workdir", shapes_run, *other)
    assert done.returncode == 2 and not done.stdout
    assert "the images of 'folder' have one class each, but config.task='mul" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_evaluation_uses_the_stored_thresholds(calibrated, commands):
    path, result, arrays, _ = calibrated
    assert "thresholds" not in result  # those of an evaluation that chooses new ones
    done = commands.call("train.evaluate", "--workdir", path, "--output", path.parent / "later")
    assert done.returncode == 0, done.stderr
    later = json.loads(done.stdout.splitlines()[-1])
    stored = {n: one["threshold"] for n, one in result["calibration"]["decisions"].items()}
    assert later["thresholds"] == pytest.approx(stored)
    assert "half of these images chose the stored thresholds" in done.stderr
    p = expit(arrays["logits"] / result["calibration"]["temperature"])
    predicted = p >= [stored[name] for name in NAMES]
    for average in ("macro", "micro"):
        expected = f1_score(arrays["label"], predicted, average=average)
        assert later[f"f1_{average}"] == pytest.approx(expected)
    assert later["map"] == result["map"]  # without thresholds
    written = json.loads((path.parent / "later" / "evaluation.json").read_text())
    assert {one["name"]: one["threshold"] for one in written["classes"]} == pytest.approx(stored)


def test_decide_keeps_the_other_thresholds(calibrated, commands, tmp_path):
    path, *_ = calibrated
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    flags = ("--workdir", copy, "--output", tmp_path / "out")
    done = commands.call("train.evaluate", *flags, "--decide", "square=0.125")
    assert done.returncode == 0, done.stderr
    assert "with the earlier thresholds of circle, cross, triangle" in done.stdout
    before, after = (load_run(str(one)).calibration for one in (path, copy))
    assert after.temperature == before.temperature
    assert after.decisions["square"].threshold == 0.125 and not after.decisions["square"].target
    assert all(after.decisions[n] == before.decisions[n] for n in NAMES if n != "square")


def test_a_class_without_fitted_images_keeps_its_threshold():
    from train.reporting.calibration.half import Half
    from train.reporting.calibration.multi_label import choose_thresholds

    rng = np.random.default_rng(0)
    labels = (rng.random((30, 3)) < 0.5).astype(np.uint8)
    labels[:, 1] = 0
    half = Half(rng.normal(size=(30, 3)), labels, "sigmoid")
    decisions, remarks = choose_thresholds(half, 1.0, [], ["a", "b", "c"], {}, True)
    assert decisions.keys() == {"a", "c"}
    assert remarks == ["no fitted image is of b: the threshold stays 0.5"]


def test_predictions_have_the_classes_that_reach_their_thresholds(calibrated, shapes, commands):
    path, result, *_ = calibrated
    run = load_run(str(path))
    files = [str(shapes / f"{n:03}.png") for n in range(6)]
    p = expit(run.logits(files) / result["calibration"]["temperature"])
    np.testing.assert_allclose(run.predict(files), p, rtol=1e-5)
    cuts = [result["calibration"]["decisions"][name]["threshold"] for name in NAMES]
    expected = [[n for n, high in zip(NAMES, row >= cuts, strict=True) if high] for row in p]
    assert run.labels(files) == list(map(tuple, expected))
    call = ("train.predict", "--workdir", path)
    lines = commands.call(*call, *files).stdout.splitlines()
    texts = [line.partition("; labels: ")[2] for line in lines]
    assert texts == [", ".join(names) or "none" for names in expected]
    lines = commands.call(*call, "--json", *files).stdout.splitlines()
    assert [json.loads(line)["labels"] for line in lines] == expected
    missing = str(shapes / "missing.png")
    done = commands.call(*call, "--csv", "--topk", 1, *files, missing)
    *rows, failed = csv.DictReader(io.StringIO(done.stdout))
    assert [row["labels"] for row in rows] == ["|".join(names) for names in expected]
    assert failed["labels"] == "" and failed["error"]
    done = commands.call(*call, "--csv", shapes / "labels.csv")
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header == ["image", "labels", "predicted", "probability", "run_labels", "error"]
    assert [row[4] for row in rows[:6]] == ["|".join(names) for names in expected]


def test_labels_without_calibration_are_those_from_one_half_on(shapes_run, shapes):
    run = load_run(shapes_run)
    files = [str(shapes / f"{n:03}.png") for n in range(6)]
    expected = [tuple(np.array(NAMES)[row >= 0.5].tolist()) for row in run.predict(files)]
    assert run.labels(files) == expected
    with pytest.raises(ValueError, match="use predict"):
        dataclasses.replace(run, several_labels=False).labels(files)


def test_a_name_with_the_character_that_joins_classes_is_noted(shapes_run):
    run = load_run(shapes_run)
    assert not [note for note in make_answers(run, None).notes if "--json has lists" in note]
    names = ("cir|cle", *run.class_names[1:])
    [note] = make_answers(dataclasses.replace(run, class_names=names), None).notes
    assert "'cir|cle' has the '|'" in note and "--json has lists" in note


def test_prediction_sets_are_refused(calibrated, shapes, commands):
    path, *_ = calibrated
    call = ("train.predict", "--workdir", path, "--coverage", 0.9, shapes / "000.png")
    done = commands.call(*call)
    assert done.returncode == 2
    assert "--coverage is for runs with one class per image" in done.stderr


def test_the_model_card_has_labels(calibrated):
    from train.export.loaders import loader_for_format
    from train.export.model_card import model_card

    run = load_run(str(calibrated[0]))
    loader = loader_for_format(run, "stablehlo")
    card = model_card(run, loader, "stablehlo", "net", "fine", {"date": "2026-02-03"})
    assert "independent probabilities of 4 classes, of which an image may have any number" in card
    assert "label `circle` from a probability of" in card and "(for `F1`)" in card
    assert 'info.get("decision_thresholds", {})' in card


def test_the_exported_program_equals_the_calibrated_run(calibrated, shapes, tmp_path):
    from jax import export

    from train.export.stablehlo import write_stablehlo

    run = load_run(str(calibrated[0]))
    images = run.prepare([str(shapes / f"{n:03}.png") for n in range(6)])
    write_stablehlo(run, str(tmp_path / "net"))
    program = export.deserialize(bytearray((tmp_path / "net").read_bytes()))
    expected = expit(run.logits(images, prepared=True) / run.temperature)
    np.testing.assert_allclose(program.call(images), expected, atol=1e-5)


def test_folds_are_pooled_and_compared(commands, shapes, shapes_run, tmp_path):
    other = train_on_shapes(shapes, tmp_path / "other", "2/2")
    parts = [dict(np.load(f"{path}/held_out.npz")) for path in (shapes_run, other)]
    label, p = (np.concatenate([part[k] for part in parts]) for k in ("label", "probabilities"))
    runs = [read(path) for path in (shapes_run, other)]
    [validation] = cross_validations(runs)
    assert validation.remark == "" and validation.images == 160
    pooled = validation.pooled
    assert pooled["eval/map"] == pytest.approx(average_precision_score(label, p), abs=1e-9)
    assert pooled["eval/f1_macro"] == pytest.approx(f1_score(label, p >= 0.5, average="macro"))
    at_random = random_average_precision(label.sum(axis=0), len(label))
    assert pooled["eval/map_baseline"] == pytest.approx(at_random.mean())
    done = commands.call(
        "train.compare", *(run.path for run in runs), "--output", tmp_path / "c.html"
    )
    assert done.returncode == 0, done.stderr
    head = results_table(runs).head
    assert head[:2] == ["run", "mAP"] and {"mAP baseline", "best mAP"} < {*head}
    first = next(line for line in done.stdout.splitlines() if line.startswith(runs[0].name))
    assert f"{100 * pooled['eval/map']:.2f} %" in done.stdout
    for run, mark in ((runs[0], "!" in first), (runs[1], None)):
        [part] = json.loads(Path(run.path, "report.json").read_text())["evaluations"].values()
        assert run.baseline.metric == "eval/map"
        assert run.baseline.is_above == (part["map_interval"][0] > part["map_baseline"])
        assert mark in (None, not run.baseline.is_above)


def test_a_ranking_at_random_is_marked(shapes_run):
    run = read(shapes_run)
    run.rows[-1] |= {"eval/map": 0.5, "eval/map_baseline": 0.5}
    table = results_table([run])
    value = table.rows[0][table.head.index("mAP")]
    assert not run.baseline.is_above and value == "50.00 % !"
    run = read(shapes_run)
    run.rows[-1] |= {"eval/map": 0.9, "eval/map_baseline": 0.5}
    assert run.baseline.is_above
