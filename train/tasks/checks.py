"""Checks of a task with one vector of outputs per image."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from train.config.keys import KEYS
from train.config.registries import METRIC_FIELDS, TASKS
from train.data.augment.mixup import Targets
from train.runtime.errors import UsageError
from train.runtime.formatting import format_array
from train.runtime.own_code import FAILURES, describe
from train.tasks.base import Loss
from train.tasks.metrics import classification_metrics

if TYPE_CHECKING:  # the step needs no ml_collections
    from train.runtime.config_dict import ConfigDict
    from train.tasks.task import Task

PROBABILITIES = ("softmax", "sigmoid")
# Keys that only task='segmentation' uses, and which keys are similar.
_KEYS_OF_PIXELS = {
    "augment.crop_size": "; the size of images is dataset.image_size",
    "augment.scale_range": "; random-resized crops are augment.rrc_scale",
    "aux_loss_weight": "",
}


def check_task(config: ConfigDict, task: Task, outputs: int) -> None:
    """Check a task's fields, and that its losses and metrics have one value per image.

    Raises:
      UsageError: they have not, or cannot be computed for ``outputs`` logits.
    """
    has_own_loss = TASKS.owner(config.task) is None  # by config.loss
    name = f"loss {config.loss!r}" if has_own_loss else f"task {config.task!r}"
    _check_fields(config, task, name)
    if TASKS.owner(config.task) is None:  # an own task may use any key
        _check_keys_of_pixels(config)
    logits = jax.ShapeDtypeStruct((4, outputs), jnp.float32)
    images = (4,)
    labels = jax.ShapeDtypeStruct(images, jnp.int32)
    if task.several_labels:
        labels = jax.ShapeDtypeStruct((4, outputs), jnp.uint8)

    def check(name: str, function: Any) -> Any:
        try:
            result = jax.eval_shape(function, logits, labels)
        except FAILURES as error:
            raise UsageError(f"the {name} cannot be computed: {describe(error)}") from error
        if getattr(result, "shape", None) != images:
            raise UsageError(
                f"the {name} must have one number per image, (N,); for 4 images it returned"
                f" {format_array(result)}"
            )
        return result

    training, evaluation = f"training {name}", f"{name} of an evaluation"
    if not has_own_loss:
        training, evaluation = f"training loss of the {name}", f"evaluation loss of the {name}"
    result = check(training, _of_labels(task.loss))
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise UsageError(
            f"the {training} must be floating-point numbers, not {result.dtype}, which have no"
            " gradients"
        )
    check(evaluation, _of_labels(task.eval_loss))
    check(f"rank of the task {config.task!r}", task.rank)
    for metric, function in task.metrics.items():
        check(f"metric {metric!r}", function)


def key_value(config: ConfigDict, name: str) -> Any:
    """Return the value of a key, such as ``"augment.crop_size"``."""
    return reduce(getitem, name.split("."), config)


def _check_fields(config: ConfigDict, task: Task, name: str) -> None:
    if "top1" not in task.metrics:
        raise UsageError(
            f"the task {config.task!r} has no metric 'top1', which every task needs; its metrics"
            f" are {', '.join(task.metrics) or 'none'}"
        )
    if task.probabilities not in PROBABILITIES:
        raise UsageError(
            f"the {name} has probabilities={task.probabilities!r:.80}; valid are"
            f" {' and '.join(map(repr, PROBABILITIES))}"
        )
    if task.several_labels:
        _check_several(config, task)
        _check_balance(config, task)
    if config.pos_weight and task.weigh_positives is None:
        raise UsageError(
            f"config.pos_weight={config.pos_weight!r} needs task='multi_label'; for images of one"
            " class each use class_weights"
        )
    if config.logit_adjustment and task.probabilities != "softmax":
        raise UsageError(
            f"config.logit_adjustment={config.logit_adjustment:g} is defined for losses with a"
            f" softmax over the classes, not for config.loss={config.loss!r}; use class_weights or"
            " loader.sampling='balanced'"
        )
    if wrong := sorted({*task.metrics} & {*METRIC_FIELDS}):
        raise UsageError(f"the task {config.task!r} has a metric {wrong[0]!r}; choose another name")


def _check_keys_of_pixels(config: ConfigDict) -> None:
    """Raise UsageError for a key that has no effect on images without masks."""
    for name, advice in _KEYS_OF_PIXELS.items():
        value, default = key_value(config, name), KEYS[name].default
        if value != default:
            raise UsageError(
                f"config.{name}={value!r} has no meaning with task={config.task!r}, only with"
                f" 'segmentation'; set it to {default!r}{advice}"
            )


def _check_several(config: ConfigDict, task: Task) -> None:
    """Raise UsageError if an own task with several labels has metrics of one label."""
    if task.probabilities != "sigmoid" or task.split_metrics is classification_metrics:
        raise UsageError(
            f"the task {config.task!r} has several_labels=True, and so needs"
            " probabilities='sigmoid', and split_metrics, split_metric_names and rank of several"
            " labels, such as those of train.tasks.multi_label.multi_label(config)"
        )


def _check_balance(config: ConfigDict, task: Task) -> None:
    """Raise UsageError for keys that balance classes of which an image has one each."""
    values = {name: config[name] for name in ("class_weights", "logit_adjustment")}
    if config.loader.sampling != "shuffle":
        values["loader.sampling"] = config.loader.sampling
    for name, value in values.items():
        if value:
            advice = "use pos_weight, such as 'balanced'" if task.weigh_positives else "reset it"
            raise UsageError(
                f"config.{name}={value!r} has no meaning with task={config.task!r}, in which an"
                f" image may have several classes; {advice}"
            )


def _of_labels(loss: Loss) -> Any:
    return lambda logits, labels: loss(logits, Targets(labels))
