"""Names of metrics for people, and their values as text."""

from train.config.registries import parse_top_k
from train.runtime.formatting import format_number, format_percent

# The result of answering without looking at the images, by metric.
BASELINES = {
    **{"top1": "baseline", "map": "map_baseline"},
    **{"miou": "miou_baseline", "pixel_accuracy": "baseline"},
}
_TITLES = {
    **{"f1_macro": "macro F1", "auroc_macro": "macro AUROC"},
    **{"average_precision_macro": "macro average precision", "mcc": "Matthews' coefficient"},
    **{"miou": "mIoU", "miou_baseline": "mIoU baseline"},
    **{"map": "mAP", "map_baseline": "mAP baseline", "f1_micro": "micro F1"},
}
_SHARES = (  # shown in percent
    *("baseline", "map", "map_baseline", "exact_match"),
    *("miou", "miou_baseline", "pixel_accuracy", "mean_accuracy"),
)


def title(metric: str) -> str:
    """Return a metric's name for people."""
    k = parse_top_k(metric)
    return f"top-{k}" if k else _TITLES.get(metric, metric.replace("_", " "))


def format_metric(metric: str, value: float) -> str:
    """Return a metric's value as text."""
    return format_percent(value, 2) if is_percentage(metric) else format_number(value)


def is_percentage(metric: str) -> bool:
    """Return whether a metric is shown in percent."""
    return metric in _SHARES or parse_top_k(metric) is not None


def has_percent_axis(metric: str) -> bool:
    """Return whether charts show a metric in percent, as all kinds of accuracy."""
    return is_percentage(metric) or metric.endswith("accuracy")
