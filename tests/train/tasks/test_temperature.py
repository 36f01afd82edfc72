"""Temperatures, compared with SciPy's minimum of scikit-learn's log loss."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from train.runtime.errors import RunError
from train.tasks.temperature import (
    fit_temperature,
    negative_log_likelihood,
    scaled_probabilities,
)


def sample(kind, temperature, images=4000, classes=5):
    """Return logits that are ``temperature`` times those that the labels are sampled from."""
    rng = np.random.default_rng(0)
    true = 2 * rng.normal(size=(images, classes))
    probabilities = softmax(true, axis=1) if kind == "softmax" else expit(true)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = (rng.random((images, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return temperature * true, np.minimum(labels, classes - 1)


def loss(logits, labels, kind, temperature):
    """Return the loss by scikit-learn."""
    classes = np.arange(logits.shape[1])
    if kind == "softmax":
        return log_loss(labels, softmax(logits / temperature, axis=1), labels=classes)
    probabilities = expit(logits / temperature)
    return np.mean([log_loss(labels == c, probabilities[:, c], labels=[0, 1]) for c in classes])


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_temperature_minimizes_the_log_loss(kind, temperature):
    logits, labels = sample(kind, temperature)
    fitted = fit_temperature(logits, labels, kind)
    best = minimize_scalar(
        lambda log: loss(logits, labels, kind, np.exp(log)), bounds=(-3, 3), method="bounded"
    )
    assert fitted == pytest.approx(np.exp(best.x), rel=1e-4)
    least = negative_log_likelihood(logits, labels, kind, fitted)
    assert least == pytest.approx(loss(logits, labels, kind, fitted), abs=1e-9)
    assert least <= best.fun + 1e-12
    if kind == "softmax":
        assert fitted == pytest.approx(temperature, rel=0.1)
    scaled = scaled_probabilities(logits, kind, fitted)
    assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_images_that_are_all_right_determine_no_temperature():
    logits, _ = sample("softmax", 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1), "softmax") is None
    assert fit_temperature(logits, logits > 0, "sigmoid") is None


def test_logits_without_a_temperature_are_an_error():
    logits, labels = sample("softmax", 1.0)
    with pytest.raises(RunError, match="no better than chance"):
        fit_temperature(-logits, labels, "softmax")
    with pytest.raises(RunError, match="not finite"):
        fit_temperature(np.where(logits > 3, np.nan, logits), labels, "softmax")
