"""What a run tells its reader before it starts, and what it warns of."""

from __future__ import annotations

import jax
import ml_collections

from train.engine.experiment import BatchSizes, Experiment
from train.engine.intervals import Intervals
from train.engine.optim import schedules
from train.engine.step import TrainState, trainable_params
from train.reporting.console import Console
from train.runtime.formatting import join_names, pluralize
from train.workdir import run_files


def print_summary(console: Console, run: Experiment, state: TrainState) -> None:
    """Tells what was found and what will happen, and warns of what does not fit."""
    config, devices, intervals = run.config, run.devices, run.intervals
    train_loader, eval_loader, frozen = run.train_loader, run.eval_loader, run.step_config.frozen
    source = train_loader.source
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    learning = sum(leaf.size for leaf in jax.tree.leaves(trainable_params(state.params, frozen)))
    learn = f" of which {learning:,} learn" if frozen else ""
    size = config.dataset.image_size
    sizes = ", ".join(map(str, train_loader.sizes.train_sizes))
    trained_at = f" (training at {sizes})" if sizes else ""
    kept = "in device memory" if train_loader.cached_on_device else "streamed"
    console.info(
        f"data:    {source.name}, {len(train_loader):,} training and {len(eval_loader):,}"
        f" evaluation images of {size}×{size}{trained_at}, {len(source.class_names)} classes"
        f" ({join_names(source.class_names, 4)}), {kept}"
    )
    console.info(
        f"model:   {config.model.name}, {parameters:,} parameters{learn}, {config.model.dtype},"
        f" on {devices.describe()}, {run.batch_sizes.device} images each"
    )
    console.info(f"run:     {intervals.describe()}")
    rate = schedules.describe(
        config.schedule, intervals.steps_per_epoch, intervals.num_steps, run.batch_sizes.train
    )
    console.info(f"rate:    {rate}")
    where = "new" if not state.step else f"continues after step {int(state.step)}"
    console.info(f"workdir: {run.workdir} ({where})")
    if config.smoke:
        console.info("smoke:   to see that it runs; what it learns says nothing")
    has_batch_norm = bool(state.batch_stats)
    for warning in config_warnings(config, intervals, run.batch_sizes, has_batch_norm):
        console.warn(warning)
    images, sessions = run.batch_sizes.batch_norm, run_files.read_sessions(run.workdir)
    before = sessions[-1].get("batch_norm_images", images) if sessions else images
    if has_batch_norm and state.step and before != images:
        console.warn(
            f"batch norm now sees {pluralize(images, 'image')} at once, before it saw"
            f" {before:,}: the run goes on, but learns a little differently;"
            " sync_batch_norm=True does not depend on the number of devices"
        )


def config_warnings(
    config: ml_collections.ConfigDict,
    intervals: Intervals,
    batch_sizes: BatchSizes,
    has_batch_norm: bool = True,
) -> list[str]:
    """What is permitted and yet unlikely to be meant."""
    if config.smoke:
        return []
    found = schedules.warnings(config.schedule, intervals.steps_per_epoch, intervals.num_steps)
    part, share = batch_sizes.micro, batch_sizes.batch_norm
    if share < 8 and has_batch_norm:
        found.append(
            f"batch norm sees {pluralize(share, 'image')} at once"
            + (f"; sync_batch_norm=True would use {part}" if share < part else "")
            + ("; each part of accumulate has its own statistics" * (config.grad_accum_steps > 1))
        )
    found += [text for unused, text in _unused(config) if unused]
    epochs = intervals.epoch(intervals.num_steps)
    late = [epoch for epoch in config.dataset.train_size_epochs if epoch >= epochs]
    if late:
        found.append(
            f"images should change their size at epoch {late[0]:g}, but the run ends after"
            f" {epochs:.4g}"
        )
    return found


def _unused(config: ml_collections.ConfigDict) -> list[tuple[bool, str]]:
    """What is asked for and has no effect, or hardly one that is meant."""
    binary = config.loss == "binary_cross_entropy"
    adam = config.optimizer.name in ("adam", "adamw", "lamb")
    return [
        (
            bool(config.schedule.milestone_epochs or config.schedule.milestone_steps)
            and config.schedule.name != "step",
            "schedule.milestone_epochs and milestone_steps have no effect on"
            f" schedule.name={config.schedule.name!r}",
        ),
        (
            bool(config.bce_target_threshold) and not binary,
            "bce_target_threshold has no effect on loss='cross_entropy'",
        ),
        (
            config.init_head != "auto" and not config.init_from,
            "init_head has no effect without init_from",
        ),
        (
            bool(config.freeze) and not config.init_from,
            f"freeze={config.freeze!r} without init_from keeps what was drawn at random",
        ),
        (
            config.optimizer.nesterov and adam,
            f"optimizer.nesterov=True makes '{config.optimizer.name}' Dozat's form of it, NAdam",
        ),
    ]


def print_input_wait(console: Console, share: float, streams: bool) -> None:
    """Says after the first epoch whether the devices or the images set the pace."""
    if share < 0.05:
        console.info(f"compute-bound: devices waited {share:.1%} of the time for images")
    elif not streams:
        console.info(f"devices waited {share:.0%} of the time for the next step: steps are short")
    else:
        console.info(
            f"input-bound: devices waited {share:.0%} of the time for images, and would go"
            f" {1 / max(1 - share, 1e-3):.3g} times as fast without. More cores or loader.workers"
            " help; for TFDS data, so does train.prepare --resize"
        )


def check_evaluation_loss(console: Console, loss: float, chance: float) -> None:
    """Warns where an evaluation's loss is far worse than guessing's."""
    if not loss <= 5 * chance:  # or not a number
        console.warn(
            f"the evaluation loss {loss:.4g} is far above {chance:.2g}, that of guessing; the"
            " learning rate may be too high, or the running statistics not settled yet"
        )
