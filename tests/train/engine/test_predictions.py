"""Predictions of single examples: their numbers, order, names and files."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from train.data.source import DataSource
from train.engine.predictions import (
    PredictionCollector,
    check_predictions_path,
    output_names,
    write_predictions,
)
from train.runtime.errors import RunError, UsageError
from train.tasks.predictions import predict_examples
from train.tasks.task import Task

TASK = Task(None, None, {})
LOGITS = np.float32(np.random.default_rng(0).normal(size=(8, 4)) * 2)
LABELS = np.array([3, 0, 1, 2, 2, 1, 0, 0])
# Record 2 is corrupt, and the last one is padding.
VALID = np.array([True, True, False, True, True, True, True, False])
KEPT = [0, 1, 3, 4, 5, 6]
NAMES = [f"{letter}.png" for letter in "abcdefg"]


def softmax(logits):
    return scipy.special.softmax(logits, axis=1)


@pytest.mark.parametrize(
    ("kind", "function"),
    [("softmax", softmax), ("sigmoid", scipy.special.expit)],
)
def test_numbers_of_an_example(kind, function):
    result = predict_examples(jnp.asarray(LOGITS), jnp.asarray(LABELS), kind, True)
    expected = function(LOGITS)
    np.testing.assert_allclose(result["probabilities"], expected, rtol=1e-5)
    np.testing.assert_array_equal(result["predicted"], LOGITS.argmax(1))
    np.testing.assert_allclose(result["confidence"], expected.max(1), rtol=1e-5)
    np.testing.assert_allclose(result["of_label"], expected[np.arange(8), LABELS], rtol=1e-5)
    result = predict_examples(jnp.asarray(LOGITS), jnp.asarray(LABELS), kind)
    assert sorted(result) == ["confidence", "of_label", "predicted"]


@pytest.fixture
def predictions():
    """Predictions in two batches, collected without the corrupt record and the padding."""
    collector = PredictionCollector(TASK, outputs=4)
    rank = (LOGITS > LOGITS[np.arange(8), LABELS][:, None]).sum(1)
    for part in (slice(0, 4), slice(4, 8)):
        numbers = predict_examples(LOGITS[part], LABELS[part], "softmax", True)
        numbers = {name: np.asarray(array) for name, array in numbers.items()}
        batch = {"label": LABELS[part], "rank": rank[part], "valid": VALID[part]}
        collector.add(numbers | batch)
    return collector.predictions()


@pytest.fixture
def source():
    records = [{"image": b"", "label": label} for label in LABELS[:7]]
    return DataSource("some", "test", ("x", "y", "z"), records, names=NAMES)


def test_records_are_those_of_the_split_after_a_corrupt_one(predictions):
    assert predictions.record.tolist() == KEPT and len(predictions) == 6
    np.testing.assert_array_equal(predictions.label, LABELS[KEPT])
    np.testing.assert_array_equal(predictions.predicted, LOGITS[KEPT].argmax(1))
    np.testing.assert_allclose(predictions.probabilities, softmax(LOGITS[KEPT]), rtol=1e-5)
    np.testing.assert_array_equal(predictions.right, LOGITS[KEPT].argmax(1) == LABELS[KEPT])
    assert predictions.outputs == 4


def test_csv_rows_have_the_names_of_their_images(predictions, source, tmp_path):
    write_predictions(str(tmp_path / "new" / "p.csv"), predictions, source)
    with open(tmp_path / "new" / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [NAMES[record] for record in KEPT]
    outputs = ["x", "y", "z", "output 3"]
    for row, record in zip(rows, KEPT, strict=True):
        label, logits = LABELS[record], LOGITS[record]
        assert row["label"] == outputs[label] and row["predicted"] == outputs[logits.argmax()]
        probabilities = scipy.special.softmax(logits)
        assert float(row["probability"]) == pytest.approx(probabilities.max(), rel=1e-5)
        assert float(row["probability_of_label"]) == pytest.approx(probabilities[label], rel=1e-5)
        order = np.argsort(-logits).tolist()
        assert int(row["place"]) == order.index(label) + 1


def test_npz_has_all_arrays_and_names(predictions, source, tmp_path):
    write_predictions(str(tmp_path / "p.npz"), predictions, source)
    arrays = np.load(tmp_path / "p.npz")
    assert arrays["file"].tolist() == [NAMES[record] for record in KEPT]
    assert arrays["class_names"].tolist() == ["x", "y", "z"]
    for name in ("record", "label", "predicted", "rank", "confidence", "of_label", "probabilities"):
        np.testing.assert_array_equal(arrays[name], getattr(predictions, name))
    assert len(arrays.files) == 9


def test_outputs_beyond_the_classes_have_numbers():
    assert output_names(("cat", "dog"), 2) == ["cat", "dog"]
    assert output_names(("cat", "dog"), 4) == ["cat", "dog", "output 2", "output 3"]


def test_paths_that_cannot_be_written(predictions, source, tmp_path):
    for name in ("p.csv", "p.npz"):
        check_predictions_path(str(tmp_path / name))
    with pytest.raises(UsageError, match=r"a \.csv or \.npz file, not '.*p\.txt'"):
        check_predictions_path(str(tmp_path / "p.txt"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=r"folder\.csv' is a folder"):
        check_predictions_path(str(tmp_path / "folder.csv"))
    (tmp_path / "file").touch()
    with pytest.raises(RunError):
        write_predictions(str(tmp_path / "file" / "p.csv"), predictions, source)
