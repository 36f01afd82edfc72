"""Semantic segmentation: every pixel has a class.

The target of a record is its mask, uint8 ``(H, W)``; pixels of the class 255 have no part in loss
and metrics. The metric that decides is the mean intersection over union (mIoU).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.dense.views import PictureView, average_probabilities
from train.config.registries import SEGMENTATION, register_task
from train.data.augment.configured import make_joint_augment
from train.data.augment.joint import JointAugment
from train.data.augment.mixup import Targets
from train.runtime.errors import RunError, UsageError
from train.tasks.base import Arrays, BaseTask
from train.tasks.checks import key_value
from train.tasks.label_kind import check_labels
from train.tasks.pixel_balance import PixelBalance, make_pixel_balance
from train.tasks.segmentation_metrics import IGNORED, confusion_metrics, count_pixels

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict

_MAX_COUNT = 2**31  # pixels of one batch, which are counted in int32
# Keys without a meaning for this task, with the values that turn them off.
_UNUSED = {
    "loss": "cross_entropy",
    "bce_target_threshold": 0.0,
    "pos_weight": "",
    "logit_adjustment": 0.0,
    "loader.sampling": "shuffle",
    "eval.metrics": (),
}


@register_task(SEGMENTATION)
def segmentation(config: ConfigDict) -> Segmentation:
    """Return the task with the weights and the label smoothing of the configuration."""
    return Segmentation(config.aux_loss_weight, config.label_smoothing)


class PixelTargets(NamedTuple):
    """The targets of a batch.

    Attributes:
      label: masks ``(N, H, W)``.
      loss_scale: factors of the images' summed losses ``(N,)``.
      pixel_scale: factors of the images' numbers of pixels ``(N,)``.
    """

    label: jax.Array
    loss_scale: jax.Array
    pixel_scale: jax.Array


@dataclass(frozen=True)
class SegmentationPredictions:
    """The predictions of an evaluation, for its report.

    Attributes:
      record: numbers of the images in the split ``(N,)``.
      counts: pixels of each image by class, int ``(N, 3, K)``: with the label, with the prediction,
        with both. Ignored pixels count nowhere.
      confusion: pixels of all images, int64 ``(K, K)``: labels by predictions.
      outputs: K, the number of outputs of the head.
    """

    record: np.ndarray
    counts: np.ndarray
    confusion: np.ndarray
    outputs: int

    kind = "segmentation"

    def __len__(self) -> int:
        return len(self.record)


@dataclass(frozen=True)
class Segmentation(BaseTask):
    """Cross-entropy of the pixels, and the intersection over union of their classes.

    Attributes:
      aux_loss_weight: factor of the loss of an auxiliary head, if the network has one.
      smoothing: label smoothing s of the training loss, in 0…1.
      class_weights: factors of the training loss of pixels of each class ``(K,)``, if any.
    """

    aux_loss_weight: float = 0.0
    smoothing: float = 0.0
    class_weights: Sequence[float] | None = None

    kind = "segmentation"
    headline = ("miou", "pixel_accuracy")
    default_metric = "miou"
    per_pixel = True

    def check(self, config: ConfigDict, outputs: int) -> None:
        """Raise UsageError for keys without a meaning for masks."""
        for name, off in _UNUSED.items():
            if (value := key_value(config, name)) != off:
                raise UsageError(
                    f"config.{name}={value!r} has no meaning with task={config.task!r}, whose loss"
                    f" is the cross-entropy of the pixels; set it to {off!r}"
                )

    def metric_names(self) -> Sequence[str]:
        """See :class:`BaseTask`."""
        return *self.headline, "mean_accuracy", "loss"

    def check_labels(self, config: ConfigDict, source: DataSource) -> None:
        """See :class:`BaseTask`."""
        check_labels(config, "mask", source)

    def check_split(
        self, config: ConfigDict, source: DataSource, batch_size: int, outputs: int
    ) -> None:
        """Raise UsageError if the pixels of a batch cannot be counted."""
        size = config.dataset.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if batch_size * height * width >= _MAX_COUNT:
            raise UsageError(
                f"{batch_size:,} images of {height}×{width} in an evaluation batch have more than"
                f" {_MAX_COUNT:,} pixels; set a smaller config.eval.batch_size"
            )

    def make_augment(self, config: ConfigDict) -> JointAugment:
        """See :class:`BaseTask`."""
        return make_joint_augment(config)

    def make_balance(self, config: ConfigDict, source: DataSource) -> PixelBalance | None:
        """See :class:`BaseTask`."""
        return make_pixel_balance(config, source)

    def balanced(self, balance: PixelBalance | None) -> Self:
        """See :class:`BaseTask`."""
        return self if balance is None else replace(self, class_weights=balance.weights)

    def constants(self) -> tuple:
        """Return the weights of the classes."""
        return (self.class_weights,)

    def describe(self) -> dict[str, Any]:
        """See :class:`BaseTask`."""
        return {"probabilities": "softmax", "several_labels": False, "kind": self.kind}

    def classes_in(self, label: np.ndarray) -> np.ndarray:
        """See :class:`BaseTask`."""
        return np.setdiff1d(label, IGNORED)

    def prepare(
        self,
        targets: Targets,
        record_weights: jax.Array | None,
        mean: Callable[[jax.Array], jax.Array],
    ) -> PixelTargets:
        """Return the masks, and factors that make sums over pixels means of the global batch.

        The loss is Σ w l / Σ w over the pixels of all devices and micro-batches, which the mean of
        each device's or micro-batch's own quotient is not: their numbers of pixels differ. As in
        classification, weights r of records are factors of the loss that are not divided out:
        Σ r w l / Σ r w is multiplied by the mean of r over the pixels.
        """
        label = targets.label
        valid = label != IGNORED
        pixels = weights = valid.sum((1, 2), dtype=jnp.float32)
        if self.class_weights is not None:
            weights = jnp.where(valid, self._weights_of(label), 0).sum((1, 2))
        ones = jnp.ones(len(label))
        pixel_scale = ones * _inverse(mean(pixels))
        if record_weights is None:
            return PixelTargets(label, ones * _inverse(mean(weights)), pixel_scale)
        mean_weight = mean(record_weights * pixels) * _inverse(mean(pixels))
        loss_scale = record_weights * mean_weight * _inverse(mean(record_weights * weights))
        return PixelTargets(label, loss_scale, pixel_scale)

    def _weights_of(self, label: jax.Array) -> jax.Array:
        weights = jnp.asarray(self.class_weights, jnp.float32)
        return weights[jnp.minimum(label, len(weights) - 1)]

    def training_loss(
        self, outputs: Any, prepared: PixelTargets
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss, with that of an auxiliary head, and the pixel accuracy."""
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        label = prepared.label
        loss = (prepared.loss_scale * self._losses(logits, label)).mean()
        for other in auxiliary:
            other_loss = (prepared.loss_scale * self._losses(other, label)).mean()
            loss = loss + self.aux_loss_weight * other_loss
        correct = (logits.argmax(-1) == label).sum((1, 2), dtype=jnp.float32)
        return loss, {"pixel_accuracy": (prepared.pixel_scale * correct).mean()}

    def _losses(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Return the sums of the weighted losses of each image's pixels ``(N,)``."""
        return pixel_losses(logits, label, self.smoothing, self.class_weights).sum((1, 2))

    def chance_loss(self, classes: int) -> float:
        """Return the loss of equal probabilities."""
        return float(np.log(max(2, classes)))

    def undo(self, outputs: jax.Array, view: PictureView, size: tuple[int, int]) -> jax.Array:
        """Return the outputs, mirrored and resized."""
        return view.undo(outputs, size)

    def average(self, outputs: Sequence[jax.Array]) -> jax.Array:
        """Return the logarithm of the mean probabilities."""
        return average_probabilities(outputs)

    def sums(self, outputs: jax.Array, labels: jax.Array, valid: jax.Array) -> dict[str, jax.Array]:
        """Return the summed loss, without smoothing and weights, and the confusion matrix."""
        labels = jnp.where(valid[:, None, None], labels, IGNORED)
        confusion = count_pixels(outputs.argmax(-1), labels, outputs.shape[-1])
        return {"loss": pixel_losses(outputs, labels).sum(), "confusion": confusion.sum(0)}

    def means(self, totals: Mapping[str, Any], classes: int) -> dict[str, float]:
        """Return the metrics of the confusion matrix, and the mean loss of the pixels."""
        confusion = totals["confusion"]
        pixels = int(confusion.sum())
        if not pixels:
            raise RunError("no pixel of the evaluated masks has a class: all are ignored")
        metrics = confusion_metrics(confusion)
        leading = {name: metrics.pop(name) for name in self.headline}
        return leading | {"loss": totals["loss"] / pixels} | metrics

    def per_example(
        self,
        outputs: jax.Array,
        labels: jax.Array,
        keep_probabilities: bool = False,
        keep_logits: bool = False,
    ) -> dict[str, jax.Array]:
        """Return the pixels of each class; probabilities and logits of pixels are not kept."""
        confusion = count_pixels(outputs.argmax(-1), labels, outputs.shape[-1])
        correct = jnp.diagonal(confusion, axis1=1, axis2=2)
        return {"counts": jnp.stack([confusion.sum(2), confusion.sum(1), correct], 1)}

    def predictions(
        self, arrays: Arrays, totals: Mapping[str, Any], outputs: int
    ) -> SegmentationPredictions:
        """See :class:`BaseTask`."""
        return SegmentationPredictions(**arrays, confusion=totals["confusion"], outputs=outputs)


def pixel_losses(
    logits: jax.Array,
    label: jax.Array,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> jax.Array:
    """Return cross-entropy losses ``(N, H, W)`` in nats; 0 of ignored pixels.

    As PyTorch's ``CrossEntropyLoss(weight=…, ignore_index=255, label_smoothing=…,
    reduction="none")``.

    Args:
      logits: float32 ``(N, H, W, K)``.
      label: classes ``(N, H, W)``; 255 is ignored.
      smoothing: s; the target is 1 − s for the label plus s / K for each of the K classes.
      class_weights: factors of the log-probability of each class ``(K,)``.
    """
    classes = logits.shape[-1]
    log_p = jax.nn.log_softmax(logits)
    if class_weights is not None:
        weights = jnp.asarray(class_weights, log_p.dtype)
        # Outputs beyond the classes are no labels; only label smoothing reaches them.
        weights = jnp.pad(weights, (0, classes - len(weights)), constant_values=1)
        log_p = log_p * weights
    index = jnp.minimum(label, classes - 1).astype(jnp.int32)
    losses = -(1 - smoothing) * jnp.take_along_axis(log_p, index[..., None], -1)[..., 0]
    if smoothing:
        losses -= smoothing * log_p.mean(-1)
    return jnp.where(label == IGNORED, 0, losses)


def _inverse(value: jax.Array) -> jax.Array:
    """Return 1 / value; 0 of 0, such as without any labeled pixel in a batch."""
    return jnp.where(value > 0, 1 / jnp.where(value > 0, value, 1), 0)
