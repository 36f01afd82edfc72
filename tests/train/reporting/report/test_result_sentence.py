"""The result in words and what it compares with, from predictions and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from train.reporting.classification_metrics import wilson_interval
from train.reporting.report.majority import majority_metric
from train.reporting.report.result_sentence import describe_result, worst_class


def part_of(label, predicted, names):
    """Return as much of an evaluation as the sentence needs."""
    matrix = sklearn.metrics.confusion_matrix(label, predicted, labels=range(len(names)))
    counts = matrix.sum(axis=1)
    right = int(np.trace(matrix))
    return {
        "examples": len(label),
        "top1": right / len(label),
        "top1_interval": wilson_interval(right, len(label)),
        "baseline": counts.max() / len(label),
        "confusion": matrix.tolist(),
        "classes": [
            {
                "name": name,
                "examples": int(count),
                "recall": found / count if count else None,
            }
            for name, count, found in zip(names, counts, matrix.diagonal(), strict=True)
        ],
    }


TWO = np.repeat([0, 1], [50, 150])


@pytest.mark.parametrize(
    ("label", "predicted", "names", "text"),
    [
        (
            TWO,
            np.repeat([0, 1, 0, 1], [18, 32, 10, 140]),
            ("A", "B"),
            "Not clearly better than always answering “B” (75.0 % right): right in 158 of 200"
            " images; finds 36.0 % of “A” (misses 32 of 50) and finds 93.3 % of “B” (misses 10 of"
            " 150).",
        ),
        (
            TWO,
            np.repeat([0, 1], [60, 140]),
            ("A", "B"),
            "Right in 190 of 200 images; finds 93.3 % of “B” (misses 10 of 150) and finds 100.0 %"
            " of “A” (all).",
        ),
        (
            TWO,
            np.ones(200, int),
            ("A", "B"),
            "Not clearly better than always answering “B” (75.0 % right): right in 150 of 200"
            " images; never finds “A” (50 images) and finds 100.0 % of “B” (all).",
        ),
        (TWO, TWO, ("A", "B"), "All 200 images are right (95 % confidence: at least 98.1 %)."),
        ([1], [1], ("A", "B"), "The only image is right (95 % confidence: at least 20.7 %)."),
        (
            np.repeat([0, 1, 2], 20),
            np.repeat([0, 1, 2, 0, 2], [20, 15, 5, 3, 17]),
            ("cat", "dog", "f\nox"),
            "Right in 52 of 60 images; finds 75.0 % of “dog” (misses 5 of 20). Most often takes"
            " “dog” for “f\\nox” (5 of 20).",
        ),
        (
            np.arange(200).repeat(2),
            np.where(np.arange(400) < 300, np.arange(200).repeat(2), 0),
            [f"c{k}" for k in range(200)],
            "Right in 300 of 400 images; never finds 50 of 200 classes, such as “c150”. Most often"
            " takes “c150” for “c0” (2 of 2).",
        ),
        ([0, 0, 0], [0, 1, 2], ("cat", "dog", "fox"), None),
    ],
)
def test_sentence_of_one_class_per_image(label, predicted, names, text):
    part = part_of(label, predicted, names)
    sentence = describe_result(part)
    assert sentence == text if text else "right in 1 of 3 images" in sentence
    recall = sklearn.metrics.recall_score(
        label, predicted, labels=np.unique(label), average=None, zero_division=0
    )
    assert worst_class(part)["recall"] == pytest.approx(recall.min())


DOG = {"name": "dog", "examples": 10, "recall": 0.2}


def several(**fields):
    classes = [
        {"name": "cat", "examples": 40, "recall": 0.75},
        DOG,
        {"name": "fox", "examples": 0, "recall": None},
    ]
    return {"task": "multi_label", "examples": 60, "classes": classes, "exact_match": 0.5} | fields


def test_sentence_of_several_classes_per_image():
    good = several(map_interval=(0.5, 0.6), map_baseline=0.4)
    assert describe_result(good) == (
        "Finds 32 of 50 labels (64.0 %); finds 20.0 % of “dog” (misses 8 of 10). All classes are"
        " right in 50.0 % of the images."
    )
    weak = describe_result(several(map_interval=(0.3, 0.6), map_baseline=0.4))
    assert weak.startswith("Not clearly better than a ranking at random (mAP 40.0 %): finds 32 of")
    assert describe_result(several(exact_match=1.0)).startswith("All 50 labels of 60 images are")
    blind = [{"name": "cat", "examples": 40, "recall": 0.5}, {**DOG, "recall": 0.0}]
    assert "; never finds “dog” (10 images)." in describe_result(several(classes=blind))
    nothing = several(classes=[{"name": "fox", "examples": 0, "recall": None}])
    assert describe_result(nothing) == "Evaluated on 60 images, none of them with a class."


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        ("top1", sklearn.metrics.accuracy_score),
        ("balanced_accuracy", sklearn.metrics.balanced_accuracy_score),
        ("kappa", sklearn.metrics.cohen_kappa_score),
        ("mcc", sklearn.metrics.matthews_corrcoef),
        (
            "f1_macro",
            lambda y, p: sklearn.metrics.f1_score(y, p, average="macro", zero_division=0),
        ),
    ],
)
def test_baseline_is_the_metric_of_always_answering_the_largest_class(metric, function):
    label = np.repeat([0, 1, 2], [50, 120, 30])
    part = part_of(label, label, ("a", "b", "c", "d"))
    expected = function(label, np.ones(200, int))
    assert majority_metric(metric, part) == pytest.approx(expected)


def test_baselines_of_rankings():
    part = part_of(TWO, TWO, ("A", "B"))
    assert majority_metric("top2", part) == 1 and majority_metric("auroc_macro", part) == 0.5
    assert majority_metric("loss", part) is None
    assert majority_metric("map", {"task": "multi_label", "map_baseline": 0.3}) == 0.3
    assert majority_metric("f1_macro", {"task": "multi_label", "classes": []}) is None
