"""Registries of the parts that a configuration names; see docs/extend.md.

The modules of the project's own parts fill them by the same decorators as recipes do.
"""

import re

from flax_resnet.registry import Registry

OPTIMIZERS = Registry("optimizer", ("sgd", "adam", "adamw", "lars", "lamb"))
SCHEDULES = Registry("schedule", ("constant", "step", "cosine", "polynomial", "one_cycle"))
MULTI_LABEL = "multi_label"
SEGMENTATION = "segmentation"
TASKS = Registry("task", ("classification", MULTI_LABEL, SEGMENTATION))
# Values of an empty eval.metric, by task.
BEST_METRICS = {"classification": "top1", MULTI_LABEL: "map", SEGMENTATION: "miou"}
LOSSES = Registry("loss", ("cross_entropy", "binary_cross_entropy", "focal", "asymmetric"))
# What the training step adds to the metrics of a task, and the mean over steps to these.
STEP_FIELDS = ("loss", "learning_rate", "nonfinite", "steps")
# Other fields of an evaluation, its result and its files, and those of the training step.
METRIC_FIELDS = (
    *("loss", "examples", "bad", "split", "step", "dataset", "tta", "stop", "per_example"),
    *("label", "rank", "valid", "weights", "classes", "confusion", "reliability", "calibration"),
    *("baseline", "map_baseline", "thresholds"),
    *("counts", "miou_baseline", "scales", "tiled"),
    *STEP_FIELDS[1:],
)
# Metrics of all predictions of a split together, see train/tasks/metrics.py,
# train/tasks/multi_label_metrics.py and train/tasks/segmentation_metrics.py.
SPLIT_METRICS = (
    *("balanced_accuracy", "f1_macro", "kappa", "mcc"),
    *("auroc_macro", "average_precision_macro"),
    *("map", "f1_micro", "exact_match"),
    *("miou", "pixel_accuracy", "mean_accuracy"),
)
METRICS = Registry("metric", ("top1", "top5"), forbidden=(*METRIC_FIELDS, *SPLIT_METRICS))
LOGGERS = Registry("logger", ("tensorboard", "mlflow", "wandb"))


TOP_K = re.compile(r"top([1-9][0-9]{0,6})")  # metrics of any k, beside the registered ones


def parse_top_k(metric: str) -> int | None:
    """Return k of the top-k accuracy ``"topK"``; None for others, also own ones of such a name."""
    match = TOP_K.fullmatch(metric)
    return int(match[1]) if match and METRICS.owner(metric) is None else None


def larger_is_better(metric: str) -> bool:
    """Return whether larger values of a metric, as in ``config.eval.metric``, are better.

    An own metric has the attribute ``larger_is_better`` if smaller ones are.
    """
    return metric != "loss" and getattr(METRICS.get(metric), "larger_is_better", True)


register_optimizer = OPTIMIZERS.register
register_schedule = SCHEDULES.register
register_task = TASKS.register
register_loss = LOSSES.register
register_metric = METRICS.register
register_logger = LOGGERS.register
