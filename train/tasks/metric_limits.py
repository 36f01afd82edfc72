"""Limits of an evaluation's metrics: which ones can be computed for how many images and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.config.registries import parse_top_k
from train.runtime.errors import UsageError
from train.tasks.metrics import (
    MAX_PROBABILITIES,
    MAX_TRAINING_PROBABILITIES,
    RANKING_METRICS,
)

if TYPE_CHECKING:  # the step needs neither ml_collections nor a data library
    from train.runtime.config_dict import ConfigDict
    from train.tasks.task import Task


def ranks_in_training(config: ConfigDict, several_labels: bool, images: int, outputs: int) -> bool:
    """Return whether evaluations during training compute the metrics of the ranking.

    Args:
      config: with ``eval.metric``; if it is one of them, the limit is that of ``train.evaluate``.
      several_labels: whether an image may have several classes.
      images: images of the evaluation split.
      outputs: outputs of the head.
    """
    if several_labels:  # all metrics need the probabilities
        return True
    chosen = config.eval.metric in RANKING_METRICS
    return images * outputs <= (MAX_PROBABILITIES if chosen else MAX_TRAINING_PROBABILITIES)


def check_metric(config: ConfigDict, task: Task, images: int, classes: int, outputs: int) -> None:
    """Raise UsageError if ``config.eval.metric`` cannot be computed, or a metric is always 1.

    Args:
      config: the configuration.
      task: what it learns.
      images: images of the evaluation split.
      classes: number of classes.
      outputs: outputs of the head.
    """
    metric = config.eval.metric
    for key, names in (("metric", (metric,)), ("metrics", config.eval.metrics)):
        # With a single class top-1 is 1 as well, but it is the default.
        trivial = [name for name in names if (parse_top_k(name) or 0) >= max(2, classes)]
        if trivial:
            raise UsageError(
                f"config.eval.{key}={trivial[0]!r} is 1 for any {classes} classes; choose a smaller"
                f" number, or one of {', '.join(task.split_metric_names) or 'loss'}"
            )
    if metric in RANKING_METRICS and not ranks_in_training(
        config, task.several_labels, images, outputs
    ):
        raise UsageError(
            f"config.eval.metric={metric!r} needs the probabilities of {images:,} images ×"
            f" {outputs:,} classes, more than {MAX_PROBABILITIES:,}; choose another metric"
        )


def describe_left_out(config: ConfigDict, several_labels: bool, images: int, outputs: int) -> str:
    """Return which metrics evaluations during training leave out and why; empty for none."""
    if ranks_in_training(config, several_labels, images, outputs):
        return ""
    where = ""
    if images * outputs <= MAX_PROBABILITIES:
        where = ", but by train.evaluate, or with one of them as eval.metric"
    return (
        f"{' and '.join(RANKING_METRICS)} of {images:,} images × {outputs:,} classes are not"
        f" computed during training{where}: they are more than {MAX_TRAINING_PROBABILITIES:,}"
        " probabilities to sort"
    )
