"""Metrics of segmentation from the confusion matrix of the pixels."""

import jax
import jax.numpy as jnp
import numpy as np

IGNORED = 255  # class of pixels without a part in loss and metrics, as train.data.masks.IGNORED
SEGMENTATION_METRICS = ("miou", "pixel_accuracy", "mean_accuracy")


def count_pixels(predicted: jax.Array, label: jax.Array, classes: int) -> jax.Array:
    """Return the confusion matrix of each image, int32 ``(N, K, K)``: labels by predictions.

    Args:
      predicted: classes ``(N, H, W)``.
      label: classes ``(N, H, W)``; pixels of the class 255 are not counted.
      classes: K.
    """

    def count(predicted: jax.Array, label: jax.Array) -> jax.Array:
        cell = label.astype(jnp.int32) * classes + predicted
        # Ignored pixels fall into a cell of their own, which is cut off.
        cell = jnp.where(label == IGNORED, classes**2, cell)
        return jnp.zeros(classes**2 + 1, jnp.int32).at[cell.ravel()].add(1)[:-1]

    return jax.vmap(count)(predicted, label).reshape(-1, classes, classes)


def class_iou(labels: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return intersection over union of classes; NaN of one that is neither label nor prediction.

    Args:
      labels: pixels with the label, by class ``(…, K)``.
      predicted: pixels with the prediction.
      correct: pixels with both.
    """
    union = labels + predicted - correct
    return np.where(union > 0, correct / np.maximum(union, 1), np.nan)


def confusion_metrics(confusion: np.ndarray) -> dict[str, float]:
    """Return the metrics of a confusion matrix with at least one pixel.

    ``miou`` is the mean over the classes that are the label or the prediction of some pixel, as of
    torchmetrics' ``MulticlassJaccardIndex`` and scikit-learn's ``jaccard_score``,
    ``pixel_accuracy`` the share of right pixels, ``mean_accuracy`` the mean of the classes'
    recalls. ``baseline`` is the pixel accuracy of always answering the largest class,
    ``miou_baseline`` its mIoU.

    Args:
      confusion: int64 ``(K, K)``, labels by predictions.
    """
    labels, predicted = confusion.sum(1), confusion.sum(0)
    correct, total = np.diagonal(confusion), confusion.sum()
    largest = float(labels.max() / total)
    return {
        "miou": float(np.nanmean(class_iou(labels, predicted, correct))),
        "pixel_accuracy": float(correct.sum() / total),
        "mean_accuracy": float(np.mean(correct[labels > 0] / labels[labels > 0])),
        "baseline": largest,
        "miou_baseline": largest / np.count_nonzero(labels),
    }
