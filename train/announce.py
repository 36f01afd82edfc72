"""What a run tells its reader before it starts, and what it warns of."""

from __future__ import annotations

import jax
import ml_collections

from train import schedules
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
    kept = "in device memory" if train_split.is_resident else "streamed"
    console.say(
        f"data:    {source.name}, {len(train_split):,} training and {len(eval_split):,}"
        f" evaluation images of {size}×{size}, {len(source.class_names)} classes, {kept}"
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
    share = config.batch_size // len(devices)
    if config.batch_norm == "local" and len(devices) > 1 and share < 8:
        found.append(
            f"batch norm sees {share} images on each device; batch_norm='global' would use"
            f" all {config.batch_size}"
        )
    return found


def input_wait(console: Console, share: float) -> None:
    """Says after the first epoch whether the devices or the images set the pace."""
    if share < 0.05:
        console.say(f"compute-bound: steps waited {share:.1%} of the time for images")
    else:
        console.say(
            f"input-bound: steps waited {share:.0%} of the time for images, and would go"
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
