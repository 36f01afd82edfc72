"""What a run says of itself before it starts: to the reader, and to ``run.json``."""

from __future__ import annotations

import math
from typing import Any

import jax
import ml_collections

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
    table: Timetable,
) -> None:
    """Tells what was found and what will happen, and warns of what does not fit."""
    source = train_split.source
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    size = config.dataset.image_size
    kept = "in device memory" if train_split.keeps else "streamed"
    console.say(
        f"data:    {source.name}, {len(train_split):,} training and {len(eval_split):,}"
        f" evaluation images of {size}×{size}, {len(source.class_names)} classes, {kept}"
    )
    console.say(
        f"model:   {config.model.name}, {parameters:,} parameters, {config.model.dtype},"
        f" on {devices.describe()}"
    )
    console.say(f"run:     {table.describe()}")
    where = "new" if not state.step else f"continues after step {int(state.step)}"
    console.say(f"workdir: {path} ({where})")
    for warning in warnings(config, table, devices):
        console.warn(warning)


def warnings(config: ml_collections.ConfigDict, table: Timetable, devices: Devices) -> list[str]:
    """What is permitted and yet unlikely to be meant."""
    found = []
    epochs = table.epoch(table.num_steps)
    if config.schedule.warmup_epochs >= epochs:
        found.append(
            f"the warm-up of {config.schedule.warmup_epochs:g} epochs is not over when the run"
            f" ends after {epochs:.4g}; the learning rate never reaches its height"
        )
    late = [epoch for epoch in config.schedule.step_epochs if epoch >= epochs]
    if config.schedule.name == "step" and late:
        found.append(
            f"the learning rate should fall at epoch {late[0]:g}, but the run ends after"
            f" {epochs:.4g}"
        )
    share = config.batch_size // len(devices)
    if config.batch_norm == "local" and len(devices) > 1 and share < 8:
        found.append(
            f"batch norm sees {share} images on each device; batch_norm='global' would use"
            f" all {config.batch_size}"
        )
    return found


def check_evaluation(console: Console, evaluated: dict[str, float], classes: int) -> None:
    """Warns where an evaluation's loss is far worse than guessing's, ln(classes)."""
    loss, guessing = evaluated["loss"], math.log(max(2, classes))
    if not loss <= 5 * guessing:  # or not a number
        console.warn(
            f"the evaluation loss {loss:.4g} is far above {guessing:.2f}, that of guessing; the"
            " learning rate may be too high, or the running statistics not settled yet"
        )


def description(
    config: ml_collections.ConfigDict, train_split: Split, eval_split: Split
) -> dict[str, Any]:
    """What ``run.json`` holds beside versions: what a prediction needs to know."""
    return {
        "model": config.model.name,
        "class_names": list(train_split.source.class_names),
        "preprocessing": {
            "resize": train_split.resize,
            "image_size": train_split.size,
            "mean": list(config.dataset.mean),
            "std": list(config.dataset.std),
        },
        "images": {
            train_split.source.split: len(train_split),
            eval_split.source.split: len(eval_split),
        },
    }
