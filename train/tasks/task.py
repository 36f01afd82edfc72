"""A task: what a network learns, and how that is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from train.data.augment.mixup import Targets
from train.tasks.metrics import classification_metrics

Loss = Callable[[jax.Array, Targets], jax.Array]
Metric = Callable[[jax.Array, jax.Array], jax.Array]
SplitMetrics = Callable[[Mapping[str, np.ndarray | None], int], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What a network learns, and how that is measured.

    ``config.task`` names a registered function that returns one for a configuration.

    Attributes:
      loss: training loss ``(logits (N, K), targets) -> (N,)``.
      eval_loss: loss of an evaluation, likewise.
      metrics: ``(logits (N, K), labels (N,)) -> (N,)`` by name, averaged over the examples of an
        evaluation.
      split_metrics: ``(predictions, outputs) -> {name: value}``: metrics of all predictions of a
        split together, from arrays with one entry per example as in
        :class:`train.engine.predictions.Predictions`.
      probabilities: how logits become probabilities: ``"softmax"`` over the classes or
        ``"sigmoid"`` of each.
    """

    loss: Loss
    eval_loss: Loss
    metrics: Mapping[str, Metric]
    split_metrics: SplitMetrics = classification_metrics
    probabilities: str = "softmax"
