"""A task: what a network learns, and how that is measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from train.data.augment.mixup import Targets
from train.tasks.metrics import CLASSIFICATION_METRICS, classification_metrics
from train.tasks.rank import label_rank

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
      split_metric_names: names of these metrics.
      probabilities: how logits become probabilities: ``"softmax"`` over the classes or
        ``"sigmoid"`` of each.
      several_labels: whether labels are uint8 ``(N, K)`` of zeros and ones, since an image may
        have several classes; otherwise they are int32 ``(N,)``.
      rank: ``(logits, labels) -> (N,)``: number of outputs ranked before the label; 0 is correct.
      weigh_positives: ``weights (K,) -> loss``: the training loss with factors of the positive
        labels; None if the task has no such loss.
    """

    loss: Loss
    eval_loss: Loss
    metrics: Mapping[str, Metric]
    split_metrics: SplitMetrics = classification_metrics
    split_metric_names: Sequence[str] = CLASSIFICATION_METRICS
    probabilities: str = "softmax"
    several_labels: bool = False
    rank: Metric = label_rank
    weigh_positives: Callable[[Sequence[float]], Loss] | None = None
