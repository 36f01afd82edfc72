"""Metrics of an evaluation against those of scikit-learn, on the predictions that it stored."""

import numpy as np
import pytest
import sklearn.metrics


def check_metrics(result, path):
    """Compare all metrics in ``result`` with those of the predictions in the ``.npz`` file."""
    with np.load(path) as stored:
        label, predicted = stored["label"], stored["predicted"]
        probabilities, classes = stored["probabilities"], len(stored["class_names"])
        assert len(stored["file"]) == len(label) == result["examples"]
    np.testing.assert_array_equal(predicted, probabilities.argmax(axis=1))
    one_hot = np.eye(classes)[label]
    expected = {
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(label, predicted),
        "f1_macro": sklearn.metrics.f1_score(label, predicted, average="macro"),
        "kappa": sklearn.metrics.cohen_kappa_score(label, predicted),
        "mcc": sklearn.metrics.matthews_corrcoef(label, predicted),
        "auroc_macro": sklearn.metrics.roc_auc_score(one_hot, probabilities),
        "average_precision_macro": sklearn.metrics.average_precision_score(one_hot, probabilities),
        "baseline": np.bincount(label).max() / len(label),
    }
    expected |= {
        f"top{k}": sklearn.metrics.top_k_accuracy_score(
            label, probabilities, k=k, labels=range(classes)
        )
        for k in (1, 3, 5)
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def check_label_metrics(result, path):
    """Compare the metrics of images with several classes, and return the probabilities."""
    with np.load(path) as stored:
        labels, probabilities = stored["label"], stored["probabilities"]
        assert len(stored["file"]) == len(labels) == result["examples"]
    predicted, best = probabilities >= 0.5, probabilities.argmax(axis=1)
    expected = {
        "map": sklearn.metrics.average_precision_score(labels, probabilities),
        "auroc_macro": sklearn.metrics.roc_auc_score(labels, probabilities),
        "f1_macro": sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        "f1_micro": sklearn.metrics.f1_score(labels, predicted, average="micro", zero_division=0),
        "exact_match": sklearn.metrics.accuracy_score(labels, predicted),
        "top1": labels[np.arange(len(labels)), best].mean(),
        "baseline": labels.mean(axis=0).max(),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    return probabilities


def check_curves(rankings, path):
    """Compare the curves of the report with the predictions in the ``.npz`` file."""
    with np.load(path) as stored:
        labels, probabilities = stored["label"], stored["probabilities"]
        names = stored["class_names"].tolist()
    one_hot = labels if labels.ndim == 2 else np.eye(len(names))[labels]
    known = [k for k in range(len(names)) if 0 < one_hot[:, k].sum() < len(one_hot)]
    expected = {
        "macro": (one_hot[:, known], probabilities[:, known]),
        "micro": (one_hot.ravel(), probabilities[:, : len(names)].ravel()),
    }
    expected |= {name: (one_hot[:, k], probabilities[:, k]) for k, name in enumerate(names)}
    assert rankings["classes"] == len(known)
    worst = sorted(
        known, key=lambda k: sklearn.metrics.average_precision_score(*expected[names[k]])
    )
    shown = [one["name"] or one["kind"] for one in rankings["curves"]]
    assert shown == ["macro", "micro", *(names[k] for k in worst[:8])]
    for name, one in zip(shown, rankings["curves"], strict=True):
        auroc = sklearn.metrics.roc_auc_score(*expected[name])
        average_precision = sklearn.metrics.average_precision_score(*expected[name])
        assert one["auroc"] == pytest.approx(auroc, abs=1e-9)
        assert one["average_precision"] == pytest.approx(average_precision, abs=1e-9)
        for curve, area in (("roc", auroc), ("precision_recall", average_precision)):
            x, y = np.reshape(one[curve], (-1, 2)).T
            assert len(x) <= 200 and np.trapezoid(y, x) == pytest.approx(area, abs=1e-3)
