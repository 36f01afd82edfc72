"""Temperature scaling: one number that makes a network's probabilities match its accuracy.

SciPy is imported on first use: it takes 0.15 s, which would delay the first step.
"""

import numpy as np

from train.runtime.errors import RunError

# A temperature outside this range means that the images do not determine one.
LIMITS = (0.02, 50.0)


def scaled_probabilities(
    logits: np.ndarray, kind: str, temperature: float | None = None
) -> np.ndarray:
    """Return probabilities ``(N, K)`` of logits divided by a temperature, in float64.

    Args:
      logits: ``(N, K)``.
      kind: ``"softmax"`` or ``"sigmoid"``.
      temperature: None for unchanged logits.
    """
    from scipy.special import expit, softmax

    scaled = np.asarray(logits, np.float64) / (1.0 if temperature is None else temperature)
    return expit(scaled) if kind == "sigmoid" else softmax(scaled, axis=1)


def negative_log_likelihood(
    logits: np.ndarray, labels: np.ndarray, kind: str, temperature: float | None = None
) -> float:
    """Return the mean negative log-likelihood of the labels in nats; of sigmoids per class.

    Args:
      logits: ``(N, K)``.
      labels: class indices, int ``(N,)``; with sigmoids also zeros and ones ``(N, K)``.
      kind: ``"softmax"`` or ``"sigmoid"``.
      temperature: None for unchanged logits.
    """
    from scipy.special import log_expit, log_softmax

    scaled = np.asarray(logits, np.float64) / (1.0 if temperature is None else temperature)
    if kind == "sigmoid":
        signs = np.where(_one_hot(labels, scaled.shape[1]), 1.0, -1.0)
        return float(-log_expit(signs * scaled).mean())
    return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray, kind: str) -> float | None:
    """Return the temperature with the least negative log-likelihood.

    Guo et al. 2017, arXiv:1706.04599, section 4.2. The likelihood is concave in the inverse
    temperature, so its derivative has at most one zero.

    Args:
      logits: ``(N, K)``.
      labels: class indices, int ``(N,)``; with sigmoids also zeros and ones ``(N, K)``.
      kind: ``"softmax"`` or ``"sigmoid"``.

    Returns:
      The temperature; None if nearly all images are predicted correctly, so that no confidence is
      too high for them.

    Raises:
      RunError: the logits are not finite, or the predictions no better than chance.
    """
    from scipy.optimize import brentq

    logits = np.asarray(logits, np.float64)
    if not np.isfinite(logits).all():
        raise RunError("cannot fit a temperature: the output of the network is not finite")
    truth = _one_hot(labels, logits.shape[1])

    def slope(inverse: float) -> float:
        """Return the derivative of the negative log-likelihood, times a constant."""
        return float(((scaled_probabilities(logits, kind, 1 / inverse) - truth) * logits).sum())

    low, high = 1 / LIMITS[1], 1 / LIMITS[0]
    if slope(low) >= 0:
        raise RunError(
            "cannot fit a temperature: the network's predictions of the fitted images are no"
            " better than chance"
        )
    if slope(high) <= 0:
        return None
    return 1 / brentq(slope, low, high, xtol=1e-12, rtol=1e-12)


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return whether image n is of class k, bool ``(N, K)``, of either form of labels."""
    labels = np.asarray(labels)
    return labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(classes)
