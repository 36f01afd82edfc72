"""A task: what a network learns, and how that is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax

from train.data.augment.mixup import Targets

Loss = Callable[[jax.Array, Targets], jax.Array]
Metric = Callable[[jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Task:
    """What a network learns, and how that is measured.

    ``config.task`` names a registered function that returns one for a configuration.

    Attributes:
      loss: training loss ``(logits (N, K), targets) -> (N,)``.
      eval_loss: loss of an evaluation, likewise.
      metrics: ``(logits (N, K), labels (N,)) -> (N,)`` by name, averaged over the examples of an
        evaluation. ``top1`` decides about the best checkpoint.
      probabilities: how logits become probabilities: ``"softmax"`` over the classes or
        ``"sigmoid"`` of each.
    """

    loss: Loss
    eval_loss: Loss
    metrics: Mapping[str, Metric]
    probabilities: str = "softmax"
