"""The training loop."""

from __future__ import annotations

import math
from typing import Any

import jax
import ml_collections
import numpy as np

from train import announce, report, steps, workdir
from train.build import make_model, make_task
from train.checkpoints import Checkpoints
from train.data.order import TrainOrder
from train.data.resident import gather
from train.data.splits import Split
from train.errors import RunError
from train.evaluation import evaluate
from train.meter import Meter
from train.metrics import Console, MetricsWriter
from train.parallel import make_devices
from train.signals import StopRequest
from train.timetable import make_timetable


class Interrupted(Exception):
    """A signal ended the run after everything was saved."""


def train(config: ml_collections.ConfigDict, path: str) -> dict[str, Any]:
    """Trains what ``config`` says in the workdir ``path``, or continues it there.

    Gives the final state's evaluation: ``split``, ``examples``, ``top1``, ``top5``,
    ``loss``, ``step``. Raises UsageError, RunError, or Interrupted.
    """
    devices = make_devices(config.parallel)
    devices.check_batch(config.batch_size, "config.batch_size")
    workdir.check(path, config)
    train_split = Split(config, config.dataset.train_split, training=True)
    eval_split = Split(config, config.dataset.eval_split, training=False)
    table = make_timetable(config, len(train_split))
    model = make_model(config, len(train_split.source.class_names))
    task = make_task(config, model, table.steps_per_epoch, table.num_steps)

    workdir.create(path, config)
    workdir.write_description(path, announce.description(config, train_split, eval_split))
    checkpoints = Checkpoints(path, config.checkpoint.keep)
    state = steps.create_state(task, train_split.image_shape)
    if checkpoints.steps():
        state = checkpoints.restore("last", like=state)
    start = int(state.step)

    console = Console(table.num_steps, start)
    announce.run(console, config, path, devices, train_split, eval_split, state, table)
    writer = MetricsWriter(path, start)
    curves = report.Curves(path)
    meter = Meter(config.batch_size, devices.fetch)
    order = TrainOrder(len(train_split), config.batch_size, config.seed)
    batches = train_split.train_batches(order, range(start, table.num_steps))

    train_data = devices.replicate(train_split.load().resident)
    eval_data = devices.replicate(eval_split.load().resident)
    state = devices.replicate(state)
    train_step = devices.train(
        lambda state, data, batch: steps.train_step(task, state, gather(data, batch))
    )
    eval_step = devices.evaluate(
        lambda state, data, batch: steps.eval_step(task, state, gather(data, batch))
    )

    def evaluate_now() -> dict[str, Any]:
        batch_size = config.eval.batch_size or config.batch_size
        return evaluate(devices, eval_step, state, eval_data, eval_split, batch_size)

    evaluated: dict[str, Any] | None = None
    try:
        with StopRequest() as stop:
            for step in range(start + 1, table.num_steps + 1):
                with meter.waiting():
                    batch = devices.split(next(batches))
                if step == start + 1:
                    console.compiling()
                state, metrics = train_step(state, train_data, batch)
                meter.add(metrics)
                if step == start + 1:
                    jax.block_until_ready(metrics)
                    console.compiled()
                    draw_samples(path, task, train_split, order)
                    console.start_clock()
                    meter.restart_clock()

                stopping = bool(stop)  # asked once: a signal may come at any moment
                evaluated = None
                if table.logs(step) or stopping:
                    row = {"step": step, "epoch": round(table.epoch(step), 4)} | meter.summary()
                    check_loss(row, checkpoints)
                    if table.evaluates(step):
                        evaluated = evaluate_now()
                        row |= {f"eval/{k}": v for k, v in evaluated.items() if k != "examples"}
                        announce.check_evaluation(console, evaluated, model.num_classes)
                    writer.write(row)
                    console.progress(row)
                    curves.draw(at_once=step == table.num_steps)
                    meter.restart_clock()

                if table.saves(step) or stopping or checkpoints.improves(evaluated):
                    save(checkpoints, devices.fetch(state), evaluated)
                    meter.restart_clock()
                if stopping and step < table.num_steps:
                    checkpoints.wait()
                    raise Interrupted(f"{stop.signal.name} after step {step}; everything is saved")
        checkpoints.wait()
    finally:
        console.close()
        writer.close()
        checkpoints.close()

    # Without a step to do, since the run was finished before, nothing is evaluated yet.
    evaluated = evaluated or evaluate_now()
    return {"split": eval_split.source.split} | evaluated | {"step": table.num_steps}


def save(checkpoints: Checkpoints, state: steps.TrainState, metrics: dict | None) -> None:
    """Saves a state of host arrays, unless it holds something that is not a number."""
    for where, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not np.isfinite(leaf).all():
            raise RunError(
                f"{jax.tree_util.keystr(where)} is not finite after step {state.step};"
                f" {_advice(checkpoints)}"
            )
    checkpoints.save(state, metrics)


def check_loss(row: dict[str, float], checkpoints: Checkpoints) -> None:
    """Ends the run where the loss is no number any more."""
    if not math.isfinite(row["train/loss"]):
        raise RunError(
            f"the loss became {row['train/loss']} by step {row['step']}; {_advice(checkpoints)}"
        )


def _advice(checkpoints: Checkpoints) -> str:
    saved = checkpoints.steps()
    kept = f"step {saved[-1]} is saved" if saved else "nothing was saved yet"
    return f"{kept}. A lower schedule.learning_rate or a longer warm-up often helps"


def draw_samples(path: str, task: steps.Task, split: Split, order: TrainOrder) -> None:
    """Draws the first batch as the net sees it, before normalising."""
    batch = gather(split.resident, next(iter(split.train_batches(order, range(1)))))
    batch = {name: array[:64] for name, array in batch.items()}
    keys = steps.example_keys(task.seed, 0, batch["position"])
    images = jax.device_get(jax.jit(task.augment)(batch["image"], keys))
    report.draw_samples(path, images, batch["label"], split.source.class_names)
