"""Metrics of a split equal those of scikit-learn, and have a direction."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.dummy
import sklearn.metrics
from ml_collections import ConfigDict

from train.config.checks import check_value
from train.config.registries import larger_is_better, parse_top_k, register_metric
from train.runtime.errors import UsageError
from train.tasks.classification import find_metric
from train.tasks.metric_limits import check_metric, describe_left_out
from train.tasks.metrics import (
    CLASSIFICATION_METRICS,
    RANKING_METRICS,
    classification_metrics,
)
from train.tasks.ranking import one_vs_rest
from train.tasks.task import Task

REFERENCES = {
    "balanced_accuracy": sklearn.metrics.balanced_accuracy_score,
    "f1_macro": lambda label, predicted: sklearn.metrics.f1_score(
        label, predicted, average="macro"
    ),
    "kappa": sklearn.metrics.cohen_kappa_score,
    "mcc": sklearn.metrics.matthews_corrcoef,
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(20))
def test_metrics_of_counts_equal_those_of_scikit_learn(seed):
    """Of 2 to 8 classes, some of them without images or without predictions."""
    rng = np.random.default_rng(seed)
    classes, examples = rng.integers(2, 9), rng.integers(1, 60)
    label = rng.choice(classes, examples, p=rng.dirichlet(np.ones(classes)))
    guess = rng.choice(classes, examples, p=rng.dirichlet(np.ones(classes)))
    predicted = np.where(rng.random(examples) < 0.4, label, guess)
    metrics = classification_metrics({"label": label, "predicted": predicted}, classes + 1)
    for name, reference in REFERENCES.items():
        expected = reference(label, predicted)
        if not np.isnan(expected):  # kappa of one class
            assert metrics[name] == pytest.approx(expected, abs=1e-12), name
    majority = sklearn.dummy.DummyClassifier().fit(label, label).predict(label)
    assert metrics["baseline"] == pytest.approx(np.mean(majority == label), abs=1e-12)
    assert {*metrics} == {*CLASSIFICATION_METRICS, "baseline"} - {*RANKING_METRICS}


@pytest.mark.filterwarnings("ignore:No positive class")
@pytest.mark.parametrize("digits", [1, 7])
def test_metrics_of_the_ranking_equal_those_of_scikit_learn(digits):
    """Of float32 probabilities, with many equal ones and a class without images."""
    rng = np.random.default_rng(digits)
    label = rng.choice(4, 300, p=(0.6, 0.3, 0.09, 0.01))
    probabilities = rng.dirichlet(np.ones(5), 300) + 0.4 * np.eye(5)[label]
    probabilities = np.round(probabilities / 1.4, digits).astype(np.float32)
    per_class = one_vs_rest(label, probabilities)
    for k, (auroc, precision) in enumerate(per_class[:4]):
        scores = probabilities[:, k]
        assert auroc == pytest.approx(sklearn.metrics.roc_auc_score(label == k, scores), abs=1e-12)
        expected = sklearn.metrics.average_precision_score(label == k, scores)
        assert precision == pytest.approx(expected, abs=1e-12)
    assert per_class[4] is None
    predictions = {"label": label, "predicted": probabilities.argmax(1)}
    metrics = classification_metrics(predictions | {"probabilities": probabilities}, 5)
    means = np.mean(per_class[:4], axis=0)
    assert (metrics["auroc_macro"], metrics["average_precision_macro"]) == pytest.approx(means)
    one_class = {"label": label * 0, "predicted": label * 0, "probabilities": probabilities}
    assert not {*RANKING_METRICS} & {*classification_metrics(one_class, 5)}


TASK = Task(None, None, {})


def _config(metric):
    return ConfigDict({"task": "classification", "eval": {"metric": metric, "metrics": ()}})


def test_metrics_of_the_ranking_are_left_out_with_a_line_if_they_are_too_many():
    assert describe_left_out(_config("top1"), False, 10_000, 100) == ""
    assert "train.evaluate" in describe_left_out(_config("top1"), False, 50_000, 1000)
    assert describe_left_out(_config("auroc_macro"), False, 50_000, 1000) == ""
    assert "train.evaluate" not in describe_left_out(_config("top1"), False, 10**6, 1000)
    config = _config("auroc_macro")
    check_metric(config, TASK, 50_000, 1000, 1000)
    with pytest.raises(UsageError, match="1,000,000 images × 1,000 classes"):
        check_metric(config, TASK, 10**6, 1000, 1000)


@pytest.mark.parametrize(("k", "classes"), [(5, 5), (3, 2), (999, 998)])
def test_a_top_k_accuracy_of_all_classes_is_refused(k, classes):
    for key, value in (("metric", f"top{k}"), ("metrics", ("top1", f"top{k}"))):
        config = _config("top1")
        config.eval[key] = value
        message = rf"config.eval.{key}='top{k}' is 1 for any {classes} classes"
        with pytest.raises(UsageError, match=message):
            check_metric(config, TASK, 10, classes, classes)
        check_metric(config, TASK, 10, k + 1, k + 1)
    check_metric(_config("top1"), TASK, 10, 1, 1)  # the default


@pytest.mark.parametrize("name", ["top", "top0", "top-3", "top3.0", "topk", "top03", "Top3"])
def test_other_names_are_no_top_k_accuracy(name):
    for key, value in (("eval.metric", name), ("eval.metrics", ("top1", name))):
        with pytest.raises(UsageError, match=rf"config.{key} must be .*top-k for any k"):
            check_value(key, value)
        check_value(key, "top3" if key == "eval.metric" else ("top3", "top12"))


def test_top_k_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 9)).astype(np.float32), rng.integers(0, 9, 300)
    for k in range(1, 9):
        ours = find_metric(f"top{k}")(jnp.asarray(logits), jnp.asarray(labels))
        theirs = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(9))
        assert np.asarray(ours).mean() == pytest.approx(theirs, abs=1e-12)
    assert find_metric("loss") is None


def test_an_own_metric_may_have_such_a_name():
    @register_metric("top7")
    def own(logits, labels):
        return labels

    assert find_metric("top7") is own and parse_top_k("top7") is None


def test_own_metrics_may_be_better_if_smaller():
    def distance(logits, labels):
        return logits.sum(axis=1)

    register_metric("some_distance", distance)
    assert larger_is_better("some_distance") and larger_is_better("balanced_accuracy")
    distance.larger_is_better = False
    assert not larger_is_better("some_distance") and not larger_is_better("loss")
