"""The interface of a task: its loss, metrics, predictions and checks.

:class:`train.tasks.task.Task` implements it for images with labels, and
:class:`train.tasks.segmentation.Segmentation` for images with a class per pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np

from flax_resnet.dense.views import PictureView
from train.data.augment.mixup import Targets

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.data.source import DataSource
    from train.runtime.config_dict import ConfigDict

Loss = Callable[[jax.Array, Targets], jax.Array]
Metric = Callable[[jax.Array, jax.Array], jax.Array]
Arrays = Mapping[str, np.ndarray | None]


class BaseTask(ABC):
    """What a network learns, and how that is measured.

    ``config.task`` names a registered function that returns one for a configuration. N is the
    number of images of a batch, "outputs" whatever the network returns.

    Inside the compiled step run :meth:`prepare`, :meth:`training_loss`, :meth:`undo`,
    :meth:`average`, :meth:`sums` and :meth:`per_example`; they see the images of one device.

    Attributes:
      kind: whose reports in ``train.reporting.task_reports`` its evaluations have.
      headline: metrics of results and progress lines; the first one leads. All are in
        :meth:`means`.
      default_metric: the value of an empty ``config.eval.metric``.
      probabilities: how a vector of outputs per image becomes probabilities, ``"softmax"`` or
        ``"sigmoid"``; None: the outputs are no such vectors, and cannot be calibrated.
      has_thresholds: whether stored thresholds may decide about the classes of an image.
      per_pixel: whether networks have outputs of every pixel, instead of the image.
      has_features: whether networks have pooled features before the head, one vector per image.
    """

    kind: str
    headline: Sequence[str]
    default_metric: str
    probabilities: str | None = None
    has_thresholds: bool = False
    per_pixel: bool = False
    has_features: bool = False

    # The configuration and the data ----------------------------------------------------------

    def check(self, config: ConfigDict, outputs: int) -> None:  # noqa: B027 (optional)
        """Raise UsageError if keys do not fit the task, or it cannot be computed.

        Args:
          config: the configuration.
          outputs: number of outputs of the head.
        """

    @abstractmethod
    def metric_names(self) -> Sequence[str]:
        """Return the names of all metrics of an evaluation, for ``config.eval.metric``."""

    @abstractmethod
    def check_labels(self, config: ConfigDict, source: DataSource) -> None:
        """Raise UsageError unless the labels of the data are those that the task learns."""

    @abstractmethod
    def make_augment(self, config: ConfigDict) -> Any:
        """Return the augmentation of training images.

        It has the methods ``batch`` and ``output_shape`` of
        :class:`train.data.augment.pipeline.Augment`, and ``mix``.

        Raises:
          UsageError: a key of ``config.augment`` is invalid, or has no meaning for the task.
        """

    def check_split(  # noqa: B027 (optional)
        self, config: ConfigDict, source: DataSource, batch_size: int, outputs: int
    ) -> None:
        """Raise UsageError if ``config.eval.metric`` cannot be computed on a split.

        Args:
          config: the configuration.
          source: the evaluation split.
          batch_size: images of a global evaluation batch.
          outputs: number of outputs of the head.
        """

    def make_balance(self, config: ConfigDict, source: DataSource) -> Any:
        """Return how the training loss weights the classes of ``source``; None: all alike.

        It has the methods ``describe()``, and ``describe_rare(batch_size)`` with a note or ``""``.
        """
        return None

    def balanced(self, balance: Any) -> Self:
        """Return the task with a training loss that has the weights of :meth:`make_balance`."""
        return self

    def constants(self) -> tuple:
        """Return what the compiled training step depends on, beside the configuration."""
        return ()

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the fields of ``run.json`` that say what the outputs of the network mean."""

    @abstractmethod
    def classes_in(self, label: np.ndarray) -> np.ndarray:
        """Return the classes in the label of one image."""

    # Training --------------------------------------------------------------------------------

    @abstractmethod
    def prepare(
        self,
        targets: Targets,
        record_weights: jax.Array | None,
        mean: Callable[[jax.Array], jax.Array],
    ) -> Any:
        """Return what :meth:`training_loss` needs of a batch.

        It is computed before the batch is split into micro-batches, so that whatever a loss is
        divided by may be that of the global batch.

        Args:
          targets: of this device's images, after augmentation.
          record_weights: weights of the records ``(N,)``; None: all are 1.
          mean: the mean of an array ``(N,)`` over the images of all devices.

        Returns:
          A tree of arrays with a leading axis of N.
        """

    @abstractmethod
    def training_loss(self, outputs: Any, prepared: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of a micro-batch, and its metrics by name.

        The step averages both over micro-batches and devices, which have equally many images.

        Args:
          outputs: of the network in training.
          prepared: the micro-batch's part of :meth:`prepare`.
        """

    @abstractmethod
    def chance_loss(self, classes: int) -> float:
        """Return the evaluation loss of a model that has learned nothing."""

    # Evaluation ------------------------------------------------------------------------------

    def undo(self, outputs: jax.Array, view: PictureView, size: tuple[int, int]) -> jax.Array:
        """Return the outputs for images from those for scaled or mirrored ones.

        Args:
          outputs: of the network.
          view: the form in which it saw the images.
          size: height and width of the images.
        """
        return outputs

    def average(self, outputs: Sequence[jax.Array]) -> jax.Array:
        """Return the outputs that stand for those of several views, by default their mean."""
        if len(outputs) == 1:
            return outputs[0]
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *outputs)

    @abstractmethod
    def sums(self, outputs: jax.Array, labels: jax.Array, valid: jax.Array) -> dict[str, jax.Array]:
        """Return statistics of a batch that are added over devices and batches.

        Integers are added exactly: as int32 over the devices, then as int64 or Python integers.

        Args:
          outputs: of the network.
          labels: of the images.
          valid: whether an image counts, bool ``(N,)``; padding does not.
        """

    @abstractmethod
    def means(self, totals: Mapping[str, Any], classes: int) -> dict[str, float]:
        """Return the metrics of an evaluation from the added :meth:`sums`.

        Args:
          totals: the sums, and ``examples``, the number of images that count.
          classes: number of classes of the data.
        """

    @abstractmethod
    def per_example(
        self,
        outputs: jax.Array,
        labels: jax.Array,
        keep_probabilities: bool = False,
        keep_logits: bool = False,
    ) -> dict[str, jax.Array]:
        """Return what an evaluation collects of each image, arrays with a leading axis of N.

        Args:
          outputs: of the network.
          labels: of the images.
          keep_probabilities: whether to keep the probabilities of all classes.
          keep_logits: whether to keep the logits.
        """

    def keeps_probabilities(self, config: ConfigDict, images: int, outputs: int) -> bool:
        """Return whether evaluations during training keep the probabilities of all classes.

        Args:
          config: the configuration.
          images: images of the evaluation split.
          outputs: number of outputs of the head.
        """
        return False

    def describe_left_out(self, config: ConfigDict, images: int, outputs: int) -> str:
        """Return which metrics evaluations during training leave out and why; empty for none."""
        return ""

    def split_metrics(self, arrays: Arrays, outputs: int) -> dict[str, float]:
        """Return metrics of all images of a split together that are no means.

        Args:
          arrays: what was collected, with one entry per image.
          outputs: number of outputs of the head.
        """
        return {}

    @abstractmethod
    def predictions(self, arrays: Arrays, totals: Mapping[str, Any], outputs: int) -> Any:
        """Return the predictions of an evaluation, for its report.

        They have a length, ``record``, the numbers of the images in the split, and ``kind``.

        Args:
          arrays: what was collected, and ``record``.
          totals: the added :meth:`sums`.
          outputs: number of outputs of the head.
        """
