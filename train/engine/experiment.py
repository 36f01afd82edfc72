"""A run before its first step: what was found and made, all of it checked, nothing written."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from flax_resnet import ResNet
from flax_resnet.runs import model_from_config
from train.config import loading
from train.data.augment.auto_augment import rand_augment, trivial_augment
from train.data.augment.mixup import Mixup, check_even
from train.data.augment.pipeline import Augment
from train.data.loader import DataLoader
from train.data.sampler import EpochSampler, ProcessShard
from train.data.source import DataSource
from train.data.tfds_source import data_dir
from train.engine import step
from train.engine.devices import Pmap, ShardMap, make_devices
from train.engine.intervals import Intervals, make_intervals
from train.engine.optim.freezing import frozen_modules
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.schedules import make_schedule
from train.engine.pretrained import initial_variables
from train.runtime import distributed
from train.runtime.errors import UsageError
from train.tasks.classification import make_loss
from train.workdir import environment, run_files

# Keys of the machine that a process runs on; the others have to be the same in all.
_OWN_KEYS = (
    "dataset.data_dir",
    "loader.threads",
    "loader.workers",
    "loader.max_corrupt_fraction",
    "compilation_cache",
)


@dataclass(frozen=True)
class Experiment:
    """What a run's steps need and that does not change in it.

    ``variables`` are the weights that it begins with where ``init_from`` names some, and
    ``resumes`` says that it has checkpoints, which come before these.
    """

    config: ml_collections.ConfigDict
    path: str
    devices: Pmap | ShardMap
    train_loader: DataLoader
    eval_loader: DataLoader
    intervals: Intervals
    model: ResNet
    step_config: step.StepConfig
    order: EpochSampler
    resumes: bool
    variables: dict[str, Any] | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of the images in evaluation, and in training unless that has others."""
        return self.train_loader.image_shape


def build_experiment(config: ml_collections.ConfigDict, path: str) -> Experiment:
    """Opens the data and makes the model and its steps, for the workdir ``path``.

    Sets ``config.dataset.data_dir`` in full, since evaluate runs elsewhere. Raises UsageError or
    RunError for whatever is wrong, before anything is written, decoded or compiled.
    """
    config.dataset.data_dir = data_dir(config.dataset)
    resumes = run_files.check(path, config)
    devices = make_devices(config.parallel)
    devices.check_batch(config.batch_size, config.grad_accum_steps)
    shard = ProcessShard(*distributed.place())
    train_loader = DataLoader(config, config.dataset.train_split, training=True, shard=shard)
    eval_loader = DataLoader(
        config,
        config.dataset.eval_split,
        training=False,
        shard=shard,
        cached_gib=train_loader.cached_gib,
    )
    check_classes(train_loader.source, eval_loader.source)
    if resumes and run_files.find_description(path) is not None:  # or the file is rewritten
        run_files.check_data(path, train_loader, eval_loader)
    intervals = make_intervals(config, len(train_loader))
    names = train_loader.source.class_names
    model = make_model(config, len(names))
    step_config = make_step_config(config, model, intervals.steps_per_epoch, intervals.num_steps)
    if step_config.augment.mix:
        check_even(config.batch_size // len(devices))
    order = EpochSampler(
        len(train_loader), config.batch_size, config.seed, config.augment.repeated_aug
    )
    variables = None
    if not resumes:
        variables = initial_variables(config, model, train_loader.image_shape, names)
    return Experiment(
        config=config,
        path=path,
        devices=devices,
        train_loader=train_loader,
        eval_loader=eval_loader,
        intervals=intervals,
        model=model,
        step_config=step_config,
        order=order,
        resumes=resumes,
        variables=variables,
    )


def check_alike(config: ml_collections.ConfigDict, *splits: DataLoader) -> None:
    """Raises RunError where processes would not compute the same; all of them must call it."""
    distributed.assert_equal("version of the code", environment.code_digest())
    distributed.assert_equal("versions of the libraries", environment.versions())
    keys = loading.flatten(config)
    distributed.assert_equal(
        "configuration", {name: v for name, v in keys.items() if name not in _OWN_KEYS}
    )
    for split in splits:
        distributed.assert_equal(f"{split.source.split!r} data", _told(split.source))


def _told(source: DataSource) -> dict[str, Any]:
    """What tells one split from another, without reading all of it."""
    last = len(source) - 1
    some = sorted({0, last // 3, last // 2, last})
    read = {source.record_name(index): zlib.crc32(source[index][0]) for index in some}
    return {"images": len(source), "classes": source.class_names, "records": read}


def check_classes(one: DataSource, other: DataSource) -> None:
    """Raises UsageError where two splits do not have the same classes."""
    if one.class_names == other.class_names:
        return
    missing = [
        f"{source.split!r} lacks {', '.join(map(repr, sorted(lacks)))}"
        for source, lacks in (
            (one, set(other.class_names) - set(one.class_names)),
            (other, set(one.class_names) - set(other.class_names)),
        )
        if lacks
    ]
    raise UsageError(f"the splits of {one.name} differ in their classes: {'; '.join(missing)}")


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> ResNet:
    """The network of ``config.model``. Raises UsageError for what it does not know."""
    if config.model.num_classes not in (0, num_classes):
        if config.model.num_classes < num_classes:
            raise UsageError(
                f"config.model.num_classes={config.model.num_classes} is too small:"
                f" {config.dataset.name} has {num_classes} classes"
            )
        num_classes = config.model.num_classes
    axis_name = step.AXIS if config.sync_batch_norm else None
    try:
        return model_from_config(loading.flatten(config), num_classes, axis_name)
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def make_step_config(
    config: ml_collections.ConfigDict, model: ResNet, steps_per_epoch: int, num_steps: int
) -> step.StepConfig:
    """What the steps need beside arrays. Raises UsageError for what cannot be done."""
    schedule = make_schedule(config.schedule, steps_per_epoch, num_steps, config.batch_size)
    frozen = frozen_modules(config.freeze, module_names(model)) if config.freeze else ()
    return step.StepConfig(
        model=model.clone(frozen=frozen),
        optimizer=make_optimizer(config.optimizer, schedule),
        schedule=schedule,
        augment=make_augment(config),
        loss=make_loss(config.loss, config.label_smoothing, config.bce_target_threshold),
        eval_loss=make_loss(config.loss),
        mean=tuple(config.dataset.mean),
        std=tuple(config.dataset.std),
        seed=config.seed,
        grad_accum_steps=config.grad_accum_steps,
        ema_decay=config.ema.decay,
        frozen=frozen,
        evaluate_ema=config.eval.use_ema,
        skip_nonfinite=config.on_nonfinite == "skip",
    )


def module_names(model: ResNet) -> list[str]:
    """The net's modules that have parameters: ``stem_conv``, ``stage1_block1``, …, ``head``."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return list(jax.eval_shape(model.init, jax.random.key(0), images)["params"])


def make_augment(config: ml_collections.ConfigDict) -> Augment:
    """What ``config.augment`` says. Raises UsageError for what cannot be done."""
    keys = config.augment
    mix = Mixup(keys.mixup, keys.cutmix, keys.mixup_prob, keys.mixup_switch_prob)
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
        "rand": rand_augment(keys.rand_num_ops, keys.rand_magnitude, keys.rand_prob),
    }
    return Augment(
        pad_crop=keys.pad_crop,
        hflip=keys.hflip,
        vflip=keys.vflip,
        policy=policies[keys.policy],
        color_jitter=tuple(keys.color_jitter),
        cutout=keys.cutout,
        random_erasing=keys.random_erasing,
        random_erasing_scale=tuple(keys.random_erasing_scale),
        random_erasing_ratio=tuple(keys.random_erasing_ratio),
        mix=mix,
        fill=tuple(min(255, max(0, round(255 * mean))) for mean in config.dataset.mean),
    )
