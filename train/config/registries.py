"""Registries of the parts that a configuration names; see docs/extend.md.

The modules of the project's own parts fill them by the same decorators as recipes do.
"""

from flax_resnet.registry import Registry

OPTIMIZERS = Registry("optimizer", ("sgd", "adam", "adamw", "lars", "lamb"))
SCHEDULES = Registry("schedule", ("constant", "step", "cosine", "polynomial", "one_cycle"))
TASKS = Registry("task", ("classification",))
LOSSES = Registry("loss", ("cross_entropy", "binary_cross_entropy", "focal"))
# Other fields of an evaluation, its result and its files.
METRIC_FIELDS = (
    *("loss", "examples", "bad", "split", "step", "dataset", "tta", "stop", "per_example"),
    *("label", "rank", "valid", "weights", "classes", "confusion", "reliability", "calibration"),
    "baseline",
)
# Metrics of all predictions of a split together, see train/tasks/metrics.py.
SPLIT_METRICS = (
    *("balanced_accuracy", "f1_macro", "kappa", "mcc"),
    *("auroc_macro", "average_precision_macro"),
)
METRICS = Registry("metric", ("top1", "top5"), forbidden=(*METRIC_FIELDS, *SPLIT_METRICS))
LOGGERS = Registry("logger", ("tensorboard", "mlflow", "wandb"))


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
