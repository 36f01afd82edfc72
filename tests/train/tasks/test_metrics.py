"""Metrics of a split equal those of scikit-learn, and have a direction."""

import numpy as np
import pytest
import sklearn.dummy
import sklearn.metrics

from train.config.registries import SPLIT_METRICS, larger_is_better, register_metric
from train.tasks.metrics import classification_metrics

REFERENCES = {
    "balanced_accuracy": sklearn.metrics.balanced_accuracy_score,
    "f1_macro": lambda label, predicted: sklearn.metrics.f1_score(
        label, predicted, average="macro"
    ),
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
        assert metrics[name] == pytest.approx(reference(label, predicted), abs=1e-12), name
    majority = sklearn.dummy.DummyClassifier().fit(label, label).predict(label)
    assert metrics["baseline"] == pytest.approx(np.mean(majority == label), abs=1e-12)
    assert {*SPLIT_METRICS} <= {*metrics}


def test_own_metrics_may_be_better_if_smaller():
    def distance(logits, labels):
        return logits.sum(axis=1)

    register_metric("some_distance", distance)
    assert larger_is_better("some_distance") and larger_is_better("balanced_accuracy")
    distance.larger_is_better = False
    assert not larger_is_better("some_distance") and not larger_is_better("loss")
