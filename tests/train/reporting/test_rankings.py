"""ROC and precision–recall curves of evaluations: which are shown, thresholds, limits."""

from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
from scipy.special import softmax

from flax_resnet.schema import SchemaError
from train.reporting import rankings
from train.reporting.charts import ranking, svg
from train.reporting.rankings import Decided, build_rankings


def example(counts, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=(len(label), len(counts)))
    logits[np.arange(len(label)), label] += 1.5
    return label, logits, softmax(logits, axis=1).astype(np.float32)


def build(label, probabilities, decided=(), names="abcdefghijklmnop"):
    names = names[: probabilities.shape[1]]
    return build_rankings(names, lambda k: label == k, probabilities, dict(decided), True)


@pytest.mark.parametrize(("counts", "positive"), (((30, 70), 0), ((70, 30), 1), ((50, 50), 1)))
def test_of_two_classes_the_rarer_one_has_the_only_curve(counts, positive):
    label, _, probabilities = example(counts)
    found = build(label, probabilities)
    [curve] = found["curves"]
    assert (curve["kind"], curve["name"]) == ("class", "ab"[positive])
    assert curve["positives"] == pytest.approx(counts[positive] / 100)
    expected = sklearn.metrics.roc_auc_score(label == positive, probabilities[:, positive])
    assert curve["auroc"] == pytest.approx(expected, abs=1e-9)
    titles = [panel.title for panel in ranking.panels(found)]
    assert titles == [f"{kind} curve of {curve['name']}" for kind in ("precision–recall", "ROC")]
    assert f"Positive is the class {curve['name']}, which" in ranking.explanation(found)


def test_of_many_classes_means_and_the_worst_are_shown():
    label, _, probabilities = example([20] * 12 + [0])
    found = rankings.SCHEMA(build(label, probabilities) | {"more": 1}, "")
    kinds = [one["kind"] for one in found["curves"]]
    assert kinds == ["macro", "micro", *["class"] * 8] and found["classes"] == 12
    scores = [
        sklearn.metrics.average_precision_score(label == k, probabilities[:, k]) for k in range(12)
    ]
    assert [one["name"] for one in found["curves"][2:]] == [
        "abcdefghijkl"[k] for k in np.argsort(scores)[:8]
    ]
    panels = ranking.panels(found)
    assert svg.document(panels, "run").count("AUROC 0.") == 10
    assert "the 8 classes with the lowest average precision" in ranking.explanation(found)


def test_stored_thresholds_lie_on_the_curves():
    label, logits, probabilities = example((400, 100))
    temperature, threshold = 2.5, 0.4
    calibration = SimpleNamespace(
        activation="softmax",
        temperature=temperature,
        decisions={"b": SimpleNamespace(threshold=threshold)},
    )
    source = SimpleNamespace(class_names=("a", "b"))
    for known in (logits, None):  # without logits they are made of the probabilities
        evaluated = SimpleNamespace(
            calibration=calibration,
            predictions=SimpleNamespace(probabilities=probabilities, logits=known),
            loader=SimpleNamespace(source=source),
        )
        [curve] = build(label, probabilities, rankings.stored_decisions(evaluated))["curves"]
        reached = softmax(logits / temperature, axis=1)[:, 1] >= threshold
        mark = curve["mark"]
        assert mark["threshold"] == threshold
        assert mark["recall"] == pytest.approx(sklearn.metrics.recall_score(label, reached))
        assert mark["precision"] == pytest.approx(sklearn.metrics.precision_score(label, reached))
        assert mark["false_positive_rate"] == pytest.approx(reached[label == 0].mean())
        x, y = np.reshape(curve["roc"], (-1, 2)).T
        assert np.interp(mark["false_positive_rate"], x, y) == pytest.approx(
            mark["recall"], abs=0.02
        )
    for panel in ranking.panels({"classes": 1, "curves": [curve]}):
        [scatter] = panel.scatter
        assert "stored threshold 0.4: recall" in scatter.label


def test_no_curves_without_probabilities_or_of_a_single_class():
    label, _, probabilities = example((5, 5, 5))
    assert build_rankings("abc", lambda k: label == k, None, {}, True) is None
    assert build(np.zeros(15, int), probabilities) is None
    never = Decided(1.0, np.zeros(15))
    mark = build(label, probabilities, {0: never})
    [marked] = [one for one in mark["curves"] if one["mark"]]
    assert marked["mark"]["precision"] is None
    assert not any(panel.scatter for panel in ranking.panels(mark))


def test_damaged_curves_are_refused():
    label, _, probabilities = example((5, 5))
    found = build(label, probabilities)
    found["curves"][0]["roc"] = found["curves"][0]["roc"][:-1]
    with pytest.raises(SchemaError, match="pairs"):
        rankings.SCHEMA(found, "rankings")
    found = build(label, probabilities)
    found["curves"] = [found["curves"][0] | {"kind": "macro"}]
    with pytest.raises(SchemaError, match="only curve"):
        rankings.SCHEMA(found, "rankings")
