"""From a configuration to the model and what its steps need."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_collections

from flax_resnet import ResNet
from flax_resnet.runs import network_of
from train.config import loading as config_lib
from train.data.augment.auto_augment import rand_augment, trivial_augment
from train.data.augment.mixup import Mix
from train.data.augment.pipeline import Augment
from train.engine import step as steps
from train.engine.optim.freezing import frozen_modules
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.schedules import make_schedule
from train.runtime.errors import UsageError
from train.tasks.classification import make_loss


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> ResNet:
    """The network of ``config.model``. Raises UsageError for what it does not know."""
    if config.model.num_classes not in (0, num_classes):
        if config.model.num_classes < num_classes:
            raise UsageError(
                f"config.model.num_classes={config.model.num_classes} is too small:"
                f" {config.dataset.name} has {num_classes} classes"
            )
        num_classes = config.model.num_classes
    axis_name = steps.AXIS if config.batch_norm == "global" else None
    try:
        return network_of(config_lib.flatten(config), num_classes, axis_name)
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def make_task(
    config: ml_collections.ConfigDict, model: ResNet, steps_per_epoch: int, num_steps: int
) -> steps.Task:
    """What the steps need beside arrays. Raises UsageError for what cannot be done."""
    schedule = make_schedule(config.schedule, steps_per_epoch, num_steps, config.batch_size)
    frozen = frozen_modules(config.freeze, module_names(model)) if config.freeze else ()
    return steps.Task(
        model=model.clone(frozen=frozen),
        optimizer=make_optimizer(config.optimizer, schedule),
        schedule=schedule,
        augment=make_augment(config),
        loss=make_loss(config.loss, config.label_smoothing, config.loss_threshold),
        eval_loss=make_loss(config.loss),
        mean=tuple(config.dataset.mean),
        std=tuple(config.dataset.std),
        seed=config.seed,
        accumulate=config.accumulate,
        ema_decay=config.ema.decay,
        frozen=frozen,
        evaluate_ema=config.eval.ema,
        skip_nonfinite=config.on_nonfinite == "skip",
    )


def module_names(model: ResNet) -> list[str]:
    """The net's modules that have parameters: ``stem_conv``, ``stage1_block1``, …, ``head``."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return list(jax.eval_shape(model.init, jax.random.key(0), images)["params"])


def make_augment(config: ml_collections.ConfigDict) -> Augment:
    """What ``config.augment`` says. Raises UsageError for what cannot be done."""
    keys = config.augment
    mix = Mix(keys.mixup, keys.cutmix, keys.mix_probability, keys.mix_switch)
    if keys.color_jitter[3] > 0.5:
        raise UsageError(
            f"config.augment.color_jitter: the hue, {keys.color_jitter[3]}, may leave 0 by at"
            " most 0.5, which is any hue"
        )
    size = min((config.dataset.image_size, *config.dataset.train_sizes))
    for name, pixels in (("cutout", keys.cutout), ("pad_crop", keys.pad_crop)):
        if pixels >= size:
            raise UsageError(
                f"config.augment.{name}={pixels} leaves nothing of images of {size} pixels"
            )
    policies = {
        "": None,
        "trivial": trivial_augment(),
        "rand": rand_augment(keys.rand_layers, keys.rand_magnitude, keys.rand_probability),
    }
    return Augment(
        pad_crop=keys.pad_crop,
        flip=keys.flip,
        vertical_flip=keys.vertical_flip,
        policy=policies[keys.policy],
        color_jitter=tuple(keys.color_jitter),
        cutout=keys.cutout,
        erasing=keys.erasing,
        erasing_area=tuple(keys.erasing_area),
        erasing_aspect=tuple(keys.erasing_aspect),
        mix=mix,
        fill=tuple(min(255, max(0, round(255 * mean))) for mean in config.dataset.mean),
    )
