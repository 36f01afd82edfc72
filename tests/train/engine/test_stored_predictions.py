"""The predictions that runs keep: all names and numbers come back, in a small file."""

import io
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from train import evaluate
from train.engine import stored_predictions
from train.runtime.errors import RunError
from train.tasks.predictions import Predictions
from train.workdir.metrics_log import evaluated_rows, read_rows


def store(path, names, label, predicted, confidence, probabilities=None):
    predictions = Predictions(
        record=np.arange(len(label)),
        label=label,
        predicted=predicted,
        rank=np.zeros(len(label), int),
        confidence=confidence,
        outputs=1000,
        probabilities=probabilities,
    )
    source = SimpleNamespace(record_name=lambda index: names[index])
    return stored_predictions.store(str(path), 7, predictions, source)


def test_predictions_come_back(tmp_path):
    rng = np.random.default_rng(0)
    names = ["a\nb.png", "图.png", "<b>", "\udcff.png", "", *map(str, range(45))]
    label, predicted = rng.integers(0, 1000, (2, 50))
    confidence = rng.random(50)
    assert store(tmp_path, names, label, predicted, confidence)
    stored = stored_predictions.read(str(tmp_path), 1000, False)
    assert stored.step == 7 and stored.names == list(map(stored_predictions.stored_name, names))
    assert stored.names[:3] == names[:3]
    np.testing.assert_array_equal(stored.label, label)
    np.testing.assert_array_equal(stored.predicted, predicted)
    np.testing.assert_allclose(stored.confidence, confidence, atol=5e-4)
    with pytest.raises(RunError, match="no predictions of this run"):
        stored_predictions.read(str(tmp_path), label.max(), False)
    with pytest.raises(RunError, match="no predictions of this run"):
        stored_predictions.read(str(tmp_path), 50, True)


def test_several_labels_keep_all_digits_of_probabilities(tmp_path):
    rng = np.random.default_rng(0)
    label = (rng.random((30, 4)) < 0.5).astype(np.uint8)
    probabilities = rng.random((30, 5)).astype(np.float32)  # an output more than classes
    names = list(map(str, range(30)))
    answers = probabilities.argmax(axis=1)
    store(tmp_path, names, label, answers, probabilities.max(axis=1), probabilities)
    stored = stored_predictions.read(str(tmp_path), 4, True)
    np.testing.assert_array_equal(stored.confidence, probabilities[:, :4])
    np.testing.assert_array_equal(stored.predicted, probabilities[:, :4] >= 0.5)
    right = ((probabilities[:, :4] >= 0.5) == label).all(axis=1)
    np.testing.assert_array_equal(stored.right, right)


def test_files_are_small_and_bounded(tmp_path, monkeypatch):
    """ImageNet's 50,000 validation images take less than 1 MB."""
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 1000, (2, 50_000))
    names = [f"n{k:08}/ILSVRC2012_val_{i:08}.JPEG" for i, k in enumerate(rng.permutation(50_000))]
    store(tmp_path, names, label, predicted, rng.random(50_000))
    file = tmp_path / stored_predictions.FILE
    assert file.stat().st_size < 1_000_000
    monkeypatch.setattr(stored_predictions, "MAX_VALUES", 49_999)
    assert not store(tmp_path, names, label, predicted, rng.random(50_000))
    assert not file.exists()  # it would be of an earlier evaluation
    assert stored_predictions.read(str(tmp_path), 1000, False) is None


def test_any_damage_is_one_error(tmp_path):
    rng = np.random.default_rng(0)
    store(tmp_path, list("abcdefgh"), *rng.integers(0, 3, (2, 8)), rng.random(8))
    file = tmp_path / stored_predictions.FILE
    content = file.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged[: rng.integers(1, len(content) + 1)])
        try:
            stored_predictions.read(str(tmp_path), 3, False)
        except RunError as error:
            assert stored_predictions.FILE in str(error) and "\n" not in str(error)
    with np.load(io.BytesIO(content)) as arrays:
        intact = dict(arrays)
    for name, values in (
        ("predicted", np.full(8, 2**63, np.uint64)),
        ("label", intact["label"].astype(np.uint64)),
    ):
        np.savez(file, **intact | {name: values})
        with pytest.raises(RunError, match="no predictions of this run"):
            stored_predictions.read(str(tmp_path), 3, False)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RunError):
        stored_predictions.read(str(tmp_path), 3, False)


def test_runs_keep_the_predictions_of_their_last_evaluation(digits_run, tmp_path, monkeypatch):
    [*_, last] = evaluated_rows(read_rows(digits_run))
    stored = stored_predictions.read(digits_run, 10, False)
    assert (stored.step, len(stored)) == (last["step"], 360)
    assert stored.right.mean() == pytest.approx(last["eval/top1"], abs=1e-9)

    exported = tmp_path / "predictions.npz"
    flags = ["--workdir", digits_run, "--output", str(tmp_path), "--predictions", str(exported)]
    monkeypatch.setattr("sys.argv", ["train.evaluate", *flags])
    assert evaluate.main() == 0
    with np.load(exported) as theirs:
        assert stored.names == theirs["file"].tolist()
        for name in ("label", "predicted", "record"):
            np.testing.assert_array_equal(getattr(stored, name), theirs[name])
        np.testing.assert_allclose(stored.confidence, theirs["confidence"], atol=1e-3)


@pytest.mark.parametrize(
    ("flags", "writes"),
    [((), True), (("--tta", "flip"), False), (("--split", "train"), False)],
)
def test_evaluate_renews_only_what_the_run_evaluates(
    digits_run, tmp_path, monkeypatch, flags, writes
):

    path = shutil.copytree(digits_run, tmp_path / "run")
    (path / stored_predictions.FILE).unlink()
    monkeypatch.setattr("sys.argv", ["train.evaluate", "--workdir", str(path), *flags])
    assert evaluate.main() == 0
    assert (path / stored_predictions.FILE).exists() == writes
    assert json.loads((path / "run.json").read_text())["class_names"] == list("0123456789")
