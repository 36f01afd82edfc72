"""What reaches the baseline of a metric, in words."""

from train.engine.evaluation import Evaluated
from train.runtime.columns import cut

_MAX_NAME = 24  # columns of a class name
_MOST_FREQUENT = "always answering the most frequent class"


def of_one_label(metric: str, evaluated: Evaluated) -> str:
    """Return the answer for images with one class each."""
    source = evaluated.loader.source
    if not source.has_cheap_labels:
        return _MOST_FREQUENT
    largest = source.class_names[int(source.class_counts().argmax())]
    return f"always answering {cut(largest, _MAX_NAME)!r}"


def of_several_labels(metric: str, evaluated: Evaluated) -> str:
    """Return the answer for images with any number of classes."""
    return "a ranking at random" if metric == "map" else _MOST_FREQUENT


def of_pixels(metric: str, evaluated: Evaluated) -> str:
    """Return the answer for images with masks."""
    labels = evaluated.predictions.confusion.sum(1)
    largest = evaluated.loader.source.class_names[int(labels.argmax())]
    return f"answering {cut(largest, _MAX_NAME)!r} everywhere"
