"""A half of the evaluated images, on which a calibration is fitted or measured."""

from dataclasses import dataclass

import numpy as np

from flax_resnet import schema
from train.tasks.temperature import negative_log_likelihood, scaled_probabilities

# Parts of the JSON of both kinds of calibrations.
SHARE = schema.number(0, 1 + 1e-6)
COUNT = schema.integer()
INTERVAL = schema.sequence(SHARE, 2, 2)
DECISIONS = schema.mapping(
    schema.record(
        threshold=SHARE,
        target=schema.optional(schema.text(100)),
        recall=schema.optional(SHARE),
        recall_interval=INTERVAL,
        precision=schema.optional(SHARE),
        precision_interval=INTERVAL,
    ),
    1_000_000,
)


@dataclass(frozen=True)
class Half:
    """Images with their labels.

    Attributes:
      logits: float64 ``(N, outputs)``; ``(N, K)`` if an image may have several classes.
      labels: class indices ``(N,)``, or zeros and ones ``(N, K)``.
      kind: how logits become probabilities.
    """

    logits: np.ndarray
    labels: np.ndarray
    kind: str

    def __len__(self) -> int:
        return len(self.labels)

    def probabilities(self, temperature: float | None) -> np.ndarray:
        """Return the probabilities of the logits divided by a temperature."""
        return scaled_probabilities(self.logits, self.kind, temperature)

    def nll(self, temperature: float | None) -> float:
        """Return the mean negative log-likelihood in nats; of several classes per class."""
        return negative_log_likelihood(self.logits, self.labels, self.kind, temperature)
