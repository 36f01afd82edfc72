"""Predictions for each example of a split."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet.runs import class_probabilities


@dataclass(frozen=True)
class Predictions:
    """Arrays with one entry per evaluated example, in the order of the split.

    Attributes:
      record: number of the example in the split.
      label: true class; of images with any number of classes zeros and ones ``(N, K)``.
      predicted: most probable class.
      rank: number of classes ranked before the true one, or the best of several; 0 is correct.
      confidence: probability of ``predicted``.
      outputs: number of outputs of the head, at least the number of classes.
      of_label: probability of ``label``; None with several classes per image.
      probabilities: ``(N, outputs)``, or None if they were not kept.
      logits: ``(N, outputs)``, or None if they were not kept.
      features: pooled, before the head, float32 ``(N, D)``, or None if they were not kept.
      thresholds: probabilities from which on classes are predicted, ``(K,)``; None: 0.5.
    """

    record: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    confidence: np.ndarray
    outputs: int
    of_label: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    logits: np.ndarray | None = None
    features: np.ndarray | None = None
    thresholds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def kind(self) -> str:
        """That of the task, see :class:`train.tasks.base.BaseTask`."""
        return "multi_label" if self.several_labels else "classification"

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several classes."""
        return self.label.ndim == 2

    @property
    def right(self) -> np.ndarray:
        """Whether the most probable class is the true one, or one of several."""
        return self.rank == 0


def predict_examples(
    logits: jax.Array,
    labels: jax.Array,
    kind: str,
    keep_probabilities: bool = False,
    keep_logits: bool = False,
) -> dict[str, jax.Array]:
    """Return a few numbers per example, inside the compiled evaluation step.

    Args:
      logits: ``(N, outputs)``.
      labels: int ``(N,)``, or ``(N, K)`` of zeros and ones.
      kind: how logits become probabilities: ``"softmax"`` or ``"sigmoid"``.
      keep_probabilities: whether to return the probabilities of all classes as well.
      keep_logits: whether to return the logits as well.
    """
    probabilities = class_probabilities(logits, kind)
    # By the logits, as ranks are: several sigmoids may round to 1.
    predicted = logits.argmax(axis=1)
    rows = jnp.arange(len(labels))
    result = {"predicted": predicted, "confidence": probabilities[rows, predicted]}
    if labels.ndim == 1:
        result["of_label"] = probabilities[rows, labels]
    result |= {"probabilities": probabilities} if keep_probabilities else {}
    return result | ({"logits": logits} if keep_logits else {})
