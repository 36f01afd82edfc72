"""The task of a network with one vector of outputs per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from train.data.augment.configured import make_augment
from train.data.augment.mixup import Targets
from train.data.augment.pipeline import Augment
from train.tasks import metric_limits
from train.tasks.base import Arrays, BaseTask, Loss, Metric
from train.tasks.checks import check_task
from train.tasks.class_balance import ClassBalance, make_balance
from train.tasks.label_kind import check_labels
from train.tasks.metrics import CLASSIFICATION_METRICS, classification_metrics
from train.tasks.positive_weights import PositiveWeights, make_positive_weights
from train.tasks.predictions import Predictions, predict_examples
from train.tasks.rank import label_rank
from train.tasks.weighting import image_weights, weighted_loss

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict

MIN_TOP5_CLASSES = 6  # with five classes or fewer top-5 accuracy is 1 by definition
_BEST_OF_SEVERAL = "map"
SplitMetrics = Callable[[Arrays, int], dict[str, float]]


@dataclass(frozen=True)
class Task(BaseTask):
    """What a network learns of images with one class or several each, and how that is measured.

    Attributes:
      loss: training loss ``(logits (N, K), targets) -> (N,)``.
      eval_loss: loss of an evaluation, likewise.
      metrics: ``(logits (N, K), labels (N,)) -> (N,)`` by name, averaged over the examples of an
        evaluation.
      split_metrics: ``(predictions, outputs) -> {name: value}``: metrics of all predictions of a
        split together, from arrays with one entry per example as in
        :class:`train.tasks.predictions.Predictions`.
      split_metric_names: names of these metrics.
      probabilities: how logits become probabilities: ``"softmax"`` over the classes or
        ``"sigmoid"`` of each.
      several_labels: whether labels are uint8 ``(N, K)`` of zeros and ones, since an image may
        have several classes; otherwise they are int32 ``(N,)``.
      rank: ``(logits, labels) -> (N,)``: number of outputs ranked before the label; 0 is correct.
      weigh_positives: ``weights (K,) -> loss``: the training loss with factors of the positive
        labels; None if the task has no such loss.
      positive_weights: the weights ``(K,)`` that ``loss`` has by ``weigh_positives``, if any.
      class_weights: factors of the training loss of images of each class ``(K,)``, if any; they
        are divided by their mean over the global batch.
      logit_adjustment: added to the logits in the training loss ``(K,)``, if anything.
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
    positive_weights: Sequence[float] | None = None
    class_weights: Sequence[float] | None = None
    logit_adjustment: Sequence[float] | None = None

    headline = ("top1",)
    has_features = True

    @property
    def kind(self) -> str:
        """See :class:`BaseTask`."""
        return "multi_label" if self.several_labels else "classification"

    @property
    def has_thresholds(self) -> bool:
        """See :class:`BaseTask`."""
        return self.several_labels

    @property
    def default_metric(self) -> str:
        """See :class:`BaseTask`."""
        ranks = self.several_labels and _BEST_OF_SEVERAL in self.split_metric_names
        return _BEST_OF_SEVERAL if ranks else "top1"

    def check(self, config: ConfigDict, outputs: int) -> None:
        """Raise UsageError for keys of other tasks, or losses and metrics of another shape."""
        check_task(config, self, outputs)

    def metric_names(self) -> Sequence[str]:
        """See :class:`BaseTask`."""
        return tuple(dict.fromkeys((*self.metrics, "loss", *self.split_metric_names)))

    def check_labels(self, config: ConfigDict, source: DataSource) -> None:
        """See :class:`BaseTask`."""
        check_labels(config, "classes" if self.several_labels else "class", source)

    def make_augment(self, config: ConfigDict) -> Augment:
        """See :class:`BaseTask`."""
        return make_augment(config)

    def check_split(
        self, config: ConfigDict, source: DataSource, batch_size: int, outputs: int
    ) -> None:
        """See :class:`BaseTask`."""
        classes = len(source.class_names)
        metric_limits.check_metric(config, self, len(source), classes, outputs)

    def make_balance(
        self, config: ConfigDict, source: DataSource
    ) -> ClassBalance | PositiveWeights | None:
        """See :class:`BaseTask`."""
        return (make_positive_weights if self.several_labels else make_balance)(config, source)

    def balanced(self, balance: ClassBalance | PositiveWeights | None) -> Self:
        """See :class:`BaseTask`."""
        if isinstance(balance, PositiveWeights):
            weights = balance.weights
            return replace(self, loss=self.weigh_positives(weights), positive_weights=weights)
        if isinstance(balance, ClassBalance):
            return replace(
                self,
                class_weights=balance.class_weights,
                logit_adjustment=balance.logit_adjustment,
            )
        return self

    def constants(self) -> tuple:
        """Return the weights that follow from the data."""
        return self.positive_weights, self.class_weights, self.logit_adjustment

    def describe(self) -> dict[str, Any]:
        """See :class:`BaseTask`."""
        return {"probabilities": self.probabilities, "several_labels": self.several_labels}

    def classes_in(self, label: np.ndarray) -> np.ndarray:
        """See :class:`BaseTask`."""
        return np.flatnonzero(label) if np.ndim(label) else np.atleast_1d(label)

    def prepare(
        self,
        targets: Targets,
        record_weights: jax.Array | None,
        mean: Callable[[jax.Array], jax.Array],
    ) -> Any:
        """Return the targets and the weights of the images."""
        return targets, image_weights(targets, record_weights, self.class_weights, mean)

    def training_loss(
        self, outputs: jax.Array, prepared: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the mean weighted loss, and top-1 accuracy.

        For a mixed image the label with the larger weight is correct.
        """
        (targets, weights), logits = prepared, outputs
        correct = jnp.mean(self.rank(logits, targets.dominant()) < 1)
        if self.logit_adjustment is not None:
            logits = logits + jnp.asarray(self.logit_adjustment, logits.dtype)
        loss = weighted_loss(self.loss, logits, targets, weights).mean()
        return loss, {"top1": correct}

    def chance_loss(self, classes: int) -> float:
        """Return the loss of all-zero logits."""
        # A model with a single output is always correct, with a loss of 0.
        logits = jnp.zeros((1, max(2, classes)))
        label = jnp.ones((1, classes)) if self.several_labels else jnp.zeros(1, int)
        return float(self.eval_loss(logits, Targets(label))[0])

    def sums(self, outputs: jax.Array, labels: jax.Array, valid: jax.Array) -> dict[str, jax.Array]:
        """Return the sums of the loss and the metrics; those that are bool count as int32."""
        losses = jnp.where(valid, self.eval_loss(outputs, Targets(labels)), 0)
        sums = {"loss": losses.sum()}
        for name, metric in self.metrics.items():
            values = metric(outputs, labels)
            exact = {"dtype": jnp.int32} if values.dtype == bool else {}
            sums[name] = jnp.where(valid, values, 0).sum(**exact)
        return sums

    def means(self, totals: Mapping[str, Any], classes: int) -> dict[str, float]:
        """Return the means of the loss and the metrics."""
        examples = totals["examples"]
        means = {name: total / examples for name, total in totals.items() if name != "examples"}
        if classes < MIN_TOP5_CLASSES:
            means.pop("top5", None)
        first = {name: means[name] for name in ("top1", "top5", "loss") if name in means}
        return first | means

    def per_example(
        self,
        outputs: jax.Array,
        labels: jax.Array,
        keep_probabilities: bool = False,
        keep_logits: bool = False,
    ) -> dict[str, jax.Array]:
        """Return label, rank and prediction."""
        numbers = predict_examples(
            outputs, labels, self.probabilities, keep_probabilities, keep_logits
        )
        return {"label": labels, "rank": self.rank(outputs, labels)} | numbers

    def keeps_probabilities(self, config: ConfigDict, images: int, outputs: int) -> bool:
        """See :class:`BaseTask`."""
        return metric_limits.ranks_in_training(config, self.several_labels, images, outputs)

    def describe_left_out(self, config: ConfigDict, images: int, outputs: int) -> str:
        """See :class:`BaseTask`."""
        return metric_limits.describe_left_out(config, self.several_labels, images, outputs)

    def predictions(self, arrays: Arrays, totals: Mapping[str, Any], outputs: int) -> Predictions:
        """See :class:`BaseTask`."""
        return Predictions(**arrays, outputs=outputs)
