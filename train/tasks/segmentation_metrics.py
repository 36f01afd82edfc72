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


def image_iou(counts: np.ndarray) -> np.ndarray:
    """Return the mean intersection over union of each image ``(N,)``.

    It is the mean over the classes that are the label or the prediction of a pixel of the image;
    NaN without any pixel that has a class.

    Args:
      counts: pixels of each image by class ``(N, 3, K)``: with the label, with the prediction, with
        both.
    """
    return known_mean(class_iou(*np.moveaxis(counts, 1, 0)))


def pixel_metrics(
    labels: np.ndarray, predicted: np.ndarray, correct: np.ndarray
) -> dict[str, np.ndarray]:
    """Return :data:`SEGMENTATION_METRICS` ``(…)``, NaN without any pixel.

    Args:
      labels: pixels with the label, by class ``(…, K)``.
      predicted: pixels with the prediction.
      correct: pixels with both.
    """
    recall = np.where(labels > 0, correct / np.maximum(labels, 1), np.nan)
    total = labels.sum(-1)
    return {
        "miou": known_mean(class_iou(labels, predicted, correct)),
        "pixel_accuracy": np.where(total > 0, correct.sum(-1) / np.maximum(total, 1), np.nan),
        "mean_accuracy": known_mean(recall),
    }


def known_mean(values: np.ndarray) -> np.ndarray:
    """Return the means of ``(…, K)`` over values that are not NaN; NaN without any."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


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
    labels = confusion.sum(1)
    metrics = pixel_metrics(labels, confusion.sum(0), np.diagonal(confusion))
    largest = float(labels.max() / labels.sum())
    return {name: float(value) for name, value in metrics.items()} | {
        "baseline": largest,
        "miou_baseline": largest / int(np.count_nonzero(labels)),
    }
