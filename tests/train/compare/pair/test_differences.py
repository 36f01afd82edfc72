"""What two runs differ in, against scikit-learn; and which runs are not compared by image."""

import shutil

import numpy as np
import pytest
import sklearn.metrics

from tests.train.compare.workdirs import CLASSES, write_predictions, write_run
from train.compare.comparison import as_text, compare_runs
from train.compare.page import page
from train.compare.pair import words
from train.compare.pair.differences import compute_differences
from train.compare.pair.predictions import pair_predictions
from train.compare.runs import read
from train.engine import stored_predictions
from train.runtime.errors import RunError

NAMES = [f"{'abc'[i % 3]}/图 <b>{i}</b>\n.png" for i in range(60)]
LABEL = np.arange(60) % 3


@pytest.fixture
def paths(tmp_path):
    """Two runs without predictions."""
    for name, rate in (("first", 0.1), ("second", 0.2)):
        write_run(tmp_path / name, {"schedule.learning_rate": rate})
    return tmp_path / "first", tmp_path / "second"


def wrong(label, indices):
    changed = label.copy()
    changed[indices] = (changed[indices] + 1) % 3
    return changed


def differences(paths):
    return compute_differences(pair_predictions(*(read(str(path)) for path in paths)))


def unpaired(paths):
    """Return why the two runs cannot be compared, as the console shows it."""
    runs = [read(str(path)) for path in paths]
    compared = compare_runs(runs)
    [text] = compared.unpaired
    shown = " ".join(as_text(compared).split())
    assert text in shown and "Results by top-1" in shown and "are not compared" in page(compared)
    return text


def test_differences_by_class_and_image(paths):
    first, second = wrong(LABEL, [0, 3, 6, 1]), wrong(LABEL, [0, 2, 5, 8, 11, 14, 17])
    first[0] = 2  # both are wrong, with different answers
    confidence = np.linspace(0.4, 0.9, 60)
    write_predictions(paths[0], LABEL, first, NAMES, confidence=confidence)
    order = np.random.default_rng(0).permutation(60)
    names = [NAMES[i] for i in order]
    write_predictions(paths[1], LABEL[order], second[order], names, confidence=confidence[order])

    found = differences(paths)
    assert found.pairs == (50, 6, 3, 1) and found.other_answers == 1
    assert found.lost.tolist() == [17, 14, 11, 8, 5, 2]  # the most confident first
    assert found.gained.tolist() == [6, 3, 1]
    recalls = [
        sklearn.metrics.recall_score(LABEL, answers, average=None) for answers in (first, second)
    ]
    by_name = {one.name: one for one in found.classes}
    assert [one.name for one in found.classes] == ["owl", "cat", "dog"]
    for k, name in enumerate(CLASSES):
        one = by_name[name]
        assert (one.first, one.second) == pytest.approx((recalls[0][k], recalls[1][k]))
        assert one.difference == pytest.approx(recalls[1][k] - recalls[0][k])
        assert one.interval[0] <= one.difference <= one.interval[1]
        assert (one.examples, one.is_clear) == (20, name == "owl")


def test_verdicts(paths):
    write_predictions(paths[0], LABEL, wrong(LABEL, range(20)), NAMES)
    write_predictions(paths[1], LABEL, wrong(LABEL, range(18, 30)), NAMES)
    assert words.verdict(differences(paths)).startswith("No clear difference on these 60 images")
    write_predictions(paths[1], LABEL, wrong(LABEL, range(19, 21)), NAMES)
    text = words.verdict(differences(paths))
    assert text.startswith("second is better than first on these 60 images: of 20")
    assert "second has 19 (McNemar's exact test, p < 0.0001)" in text
    assert words.verdict(differences(paths[::-1])) == text  # whatever the order
    write_predictions(paths[1], LABEL, wrong(LABEL, range(20)), NAMES)
    found = differences(paths)
    assert found.p_value == 1 and words.verdict(found).endswith("60 images: no difference.")
    assert not len(found.lost) and "Images that changed sides" not in page(
        compare_runs([read(str(path)) for path in paths])
    )
    write_predictions(paths[1], LABEL, wrong(LABEL, range(1, 20)), NAMES)
    assert "on which only second is right, which may be chance" in words.verdict(differences(paths))


def test_several_labels_are_compared_by_average_precision_and_complete_answers(tmp_path):
    rng = np.random.default_rng(0)
    label = (rng.random((80, 3)) < 0.4).astype(np.uint8)
    names = [f"{i}.png" for i in range(80)]
    paths, scores = [], []
    for name, noise in (("first", 0.9), ("second", 0.5)):
        paths.append(tmp_path / name)
        values = {"task": "multi_label", "eval.metric": "map", "ema.decay": noise}
        results = {"eval/map": 1 - noise, "eval/map_baseline": 0.4}
        write_run(paths[-1], values, several=True, results=results)
        score = (label * 0.3 + 0.35 + noise * (rng.random((80, 3)) - 0.5)).clip(0, 1)
        scores.append(score.astype(np.float32))
        write_predictions(paths[-1], label, scores[-1], names, thresholds=np.array([0.4, 0.5, 0.6]))
    found = differences(paths)
    for one in found.classes:
        k = CLASSES.index(one.name)
        expected = [sklearn.metrics.average_precision_score(label[:, k], s[:, k]) for s in scores]
        assert (one.first, one.second) == pytest.approx(expected, abs=1e-9)
        assert one.interval[0] < one.difference < one.interval[1] and one.lost is None
    expected = [sklearn.metrics.average_precision_score(label, s) for s in scores]
    assert found.overall.difference == pytest.approx(expected[1] - expected[0], abs=1e-9)
    assert found.overall.interval[0] < found.overall.difference < found.overall.interval[1]
    assert found.overall.is_clear and words.overall(found).startswith("mAP +")
    right = [((s >= [0.4, 0.5, 0.6]) == label).all(axis=1) for s in scores]
    assert found.pairs.both == (right[0] & right[1]).sum()
    assert found.lost.tolist() == np.flatnonzero(right[0] & ~right[1]).tolist()
    text = page(compare_runs([read(str(path)) for path in paths]))
    assert "completely right" in text and "not mAP" in text and "Average precision by class" in text


def test_names_are_escaped_and_listed(paths):
    write_predictions(paths[0], LABEL, wrong(LABEL, [4]), NAMES)
    write_predictions(paths[1], LABEL, wrong(LABEL, [7, 8]), NAMES)
    compared = compare_runs([read(str(path)) for path in paths])
    text = page(compared)
    for index in (4, 7, 8):
        assert f"图 &lt;b&gt;{index}&lt;/b&gt;\\n.png" in text
    assert "<b>4" not in text and "Without pictures: " in text  # there are no data
    shown = as_text(compared)
    assert f"图 <b>4</b>{chr(92)}n.png" in shown


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other classes", "text", "old"])
def test_runs_without_usable_predictions(paths, damage):
    for path in paths:
        write_predictions(path, LABEL, LABEL, NAMES, step=1 if damage == "old" else 2)
    file = paths[1] / stored_predictions.FILE
    content = file.read_bytes()
    if damage == "missing":  # as of earlier versions
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "other classes":
        write_predictions(paths[1], LABEL + 1, LABEL, NAMES)
    elif damage == "text":
        np.savez(file, step=2, names=np.array(["a"]), record=[0], label=[0], predicted=[0])
    text = unpaired(paths)
    if damage == "missing":
        assert f"train.evaluate --workdir {paths[1]} writes it" in text
    elif damage == "old":
        assert "is of step 1, but the last evaluation of step 2" in text
    else:
        assert str(file) in text and f"train.evaluate --workdir {paths[1]} writes it again" in text


def test_runs_on_other_images_or_labels(paths):
    write_predictions(paths[0], LABEL, LABEL, NAMES)
    write_predictions(paths[1], LABEL[3:], LABEL[3:], NAMES[3:])
    assert "57 in common, 3 only of the first and 0 only of the second" in unpaired(paths)
    write_predictions(paths[1], wrong(LABEL, [1, 2]), LABEL, NAMES)
    assert "different labels of 2 images" in unpaired(paths)
    write_predictions(paths[1], LABEL, LABEL, [*NAMES[1:], NAMES[1]])
    assert "in common" in unpaired(paths)
    for path, names in zip(paths, (NAMES[:2] * 30, NAMES[1::-1] * 30), strict=True):
        write_predictions(path, LABEL, LABEL, names)
    assert "do not have different names" in unpaired(paths)
    write_predictions(paths[1], LABEL, LABEL, NAMES[:2] * 30)  # equal ones, in the same order
    assert len(differences(paths).paired) == 60


@pytest.mark.parametrize(
    "changes",
    [
        ({"values": {"dataset.name": "tfds:mnist"}}, {"values": {"dataset.name": "tfds:kmnist"}}),
        ({"fingerprint": "a"}, {"fingerprint": "b"}),  # arrays given from Python
        ({"images": ("val", 60)}, {"images": ("test", 60)}),
    ],
)
def test_numbers_of_other_data_are_not_names(tmp_path, changes):
    paths = tmp_path / "first", tmp_path / "second"
    for names in ([f"record {i}" for i in range(60)], NAMES):
        for path, change in zip(paths, changes, strict=True):
            shutil.rmtree(path, ignore_errors=True)
            write_run(path, **change)
            write_predictions(path, LABEL, LABEL, names)
        if names is NAMES:  # equal names are the same images wherever they are
            assert len(differences(paths).paired) == 60
        else:
            assert "without names, and their data have different" in unpaired(paths)


def test_other_classes_are_not_compared(paths, tmp_path):
    write_run(tmp_path / "third", classes=("cat", "dog", "cow"))
    with pytest.raises(RunError, match="have different classes"):
        pair_predictions(*(read(str(path)) for path in (paths[0], tmp_path / "third")))
