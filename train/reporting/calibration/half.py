"""A half of the evaluated images, on which a calibration is fitted or measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flax_resnet import schema
from flax_resnet.calibration import TEMPERATURES, DecisionThreshold
from train.tasks.decisions import DecisionRequest, threshold_for
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


def measured_schema(measures: schema.Schema, **fields: schema.Schema) -> schema.Schema:
    """Return the schema of the results of a calibration.

    Args:
      measures: of the results before and after it.
      fields: further ones.
    """
    return schema.record(
        temperature=schema.optional(schema.number(*TEMPERATURES)),
        seed=COUNT,
        fitted=COUNT,
        examples=COUNT,
        before=measures,
        after=measures,
        decisions=DECISIONS,
        **fields,
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

    def of_class(self, index: int) -> np.ndarray:
        """Return whether the images are of a class, bool ``(N,)``."""
        return self.labels == index if self.labels.ndim == 1 else self.labels[:, index] > 0

    def requested(
        self, requests: Sequence[DecisionRequest], temperature: float | None, names: Sequence[str]
    ) -> dict[str, DecisionThreshold]:
        """Return the requested thresholds by class name.

        Raises:
          RunError: one cannot be reached.
        """
        probabilities, decisions = self.probabilities(temperature), {}
        for request in requests:
            index = names.index(request.name)
            threshold = threshold_for(request, probabilities[:, index], self.of_class(index))
            decisions[request.name] = DecisionThreshold(threshold, request.target)
        return decisions
