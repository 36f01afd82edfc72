"""From a configuration to the model and what its steps need."""

from __future__ import annotations

import jax.numpy as jnp
import ml_collections

from flax_resnet import ResNet, create_model
from train import steps
from train.augment import Augment
from train.errors import UsageError
from train.optimizers import make_optimizer, make_schedule


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> ResNet:
    """The network of ``config.model``. Raises UsageError for what it does not know."""
    if config.model.num_classes not in (0, num_classes):
        if config.model.num_classes < num_classes:
            raise UsageError(
                f"config.model.num_classes={config.model.num_classes} is too small:"
                f" {config.dataset.name} has {num_classes} classes"
            )
        num_classes = config.model.num_classes
    chosen = {field: config.model[field] for field in ("stem", "shortcut") if config.model[field]}
    try:
        return create_model(
            config.model.name,
            num_classes=num_classes,
            dtype=jnp.dtype(config.model.dtype),
            zero_init_last=config.model.zero_init_last,
            axis_name=steps.AXIS if config.batch_norm == "global" else None,
            **chosen,
        )
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def make_task(
    config: ml_collections.ConfigDict, model: ResNet, steps_per_epoch: int, num_steps: int
) -> steps.Task:
    """What the steps need beside arrays."""
    schedule = make_schedule(config.schedule, steps_per_epoch, num_steps)
    return steps.Task(
        model=model,
        optimizer=make_optimizer(config.optimizer, schedule),
        schedule=schedule,
        augment=Augment(flip=config.augment.flip, pad_crop=config.augment.pad_crop),
        mean=tuple(config.dataset.mean),
        std=tuple(config.dataset.std),
        seed=config.seed,
        label_smoothing=config.label_smoothing,
    )
