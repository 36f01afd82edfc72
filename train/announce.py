"""What a run tells its reader before it starts, and what it warns of."""

from __future__ import annotations

import jax
import ml_collections

from train import schedules, workdir
from train.data.splits import Split
from train.metrics import Console
from train.parallel import Devices
from train.steps import TrainState
from train.timetable import Timetable


def run(
    console: Console,
    config: ml_collections.ConfigDict,
    path: str,
    devices: Devices,
    train_split: Split,
    eval_split: Split,
    state: TrainState,
    timetable: Timetable,
) -> None:
    """Tells what was found and what will happen, and warns of what does not fit."""
    source = train_split.source
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    size = config.dataset.image_size
    sizes = ", ".join(map(str, train_split.sizes.others))
    trained_at = f" (training at {sizes})" if sizes else ""
    kept = "in device memory" if train_split.is_resident else "streamed"
    console.say(
        f"data:    {source.name}, {len(train_split):,} training and {len(eval_split):,}"
        f" evaluation images of {size}×{size}{trained_at}, {len(source.class_names)} classes"
        f" ({workdir.some(source.class_names, 4)}), {kept}"
    )
    console.say(
        f"model:   {config.model.name}, {parameters:,} parameters, {config.model.dtype},"
        f" on {devices.describe()}"
    )
    console.say(f"run:     {timetable.describe()}")
    rate = schedules.describe(
        config.schedule, timetable.steps_per_epoch, timetable.num_steps, config.batch_size
    )
    console.say(f"rate:    {rate}")
    where = "new" if not state.step else f"continues after step {int(state.step)}"
    console.say(f"workdir: {path} ({where})")
    for warning in warnings(config, timetable, devices):
        console.warn(warning)


def warnings(
    config: ml_collections.ConfigDict, timetable: Timetable, devices: Devices
) -> list[str]:
    """What is permitted and yet unlikely to be meant."""
    found = schedules.warnings(config.schedule, timetable.steps_per_epoch, timetable.num_steps)
    part = config.batch_size // config.accumulate
    share = part if config.batch_norm == "global" else part // len(devices)
    if share < 8:
        found.append(
            f"batch norm sees {share} images at once"
            + (f"; batch_norm='global' would use {part}" if share < part else "")
            + ("; each part of an accumulated batch is alone" if config.accumulate > 1 else "")
        )
    epochs = timetable.epoch(timetable.num_steps)
    late = [epoch for epoch in config.dataset.size_epochs if epoch >= epochs]
    if late:
        found.append(
            f"images should change their size at epoch {late[0]:g}, but the run ends after"
            f" {epochs:.4g}"
        )
    return found


def input_wait(console: Console, share: float) -> None:
    """Says after the first epoch whether the devices or the images set the pace."""
    if share < 0.05:
        console.say(f"compute-bound: devices waited {share:.1%} of the time for images")
    else:
        console.say(
            f"input-bound: devices waited {share:.0%} of the time for images, and would go"
            f" {1 / max(1 - share, 1e-3):.3g} times as fast without. More cores or data.workers"
            " help; for TFDS data, so does train.prepare --resize"
        )


def check_evaluation(console: Console, evaluated: dict[str, float], guessing: float) -> None:
    """Warns where an evaluation's loss is far worse than guessing's."""
    loss = evaluated["loss"]
    if not loss <= 5 * guessing:  # or not a number
        console.warn(
            f"the evaluation loss {loss:.4g} is far above {guessing:.2g}, that of guessing; the"
            " learning rate may be too high, or the running statistics not settled yet"
        )
