"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import jax
import ml_collections
import numpy as np

from train import announce, steps, workdir
from train.augment import example_keys
from train.build import make_model, make_task
from train.checkpoints import Checkpoints
from train.data.ahead import Ahead
from train.data.bad_records import BadRecords
from train.data.order import TrainOrder
from train.data.prepared import data_dir
from train.data.resident import gather
from train.data.source import Source
from train.data.splits import Split
from train.dispatch import several, stacked, steps_per_call
from train.errors import RunError, UsageError
from train.evaluation import eval_batch_size, evaluate, make_eval_step
from train.initial import initial_variables
from train.losses import guessing
from train.meter import Meter
from train.metrics import Console, MetricsWriter
from train.mixing import check_even
from train.parallel import make_devices
from train.report import Pictures
from train.signals import StopRequest
from train.timetable import make_timetable


class Interrupted(Exception):
    """A signal ended the run after everything was saved."""


def train(config: ml_collections.ConfigDict, path: str, stop: StopRequest) -> dict[str, Any]:
    """Trains what ``config`` says in the workdir ``path``, or continues it there.

    Once ``stop`` is true it finishes the step, saves and raises Interrupted. Gives the final
    state's evaluation: ``split``, ``examples``, ``top1``, ``top5``, ``loss``, ``step``.
    Raises UsageError or RunError, too.
    """
    # What is wrong shows before anything is written, decoded or compiled.
    config.dataset.data_dir = data_dir(config.dataset)  # in full: evaluate runs elsewhere
    workdir.check(path, config)
    devices = make_devices(config.parallel)
    devices.check_batch(config.batch_size, config.accumulate)
    train_split = Split(config, config.dataset.train_split, training=True)
    taken = train_split.gib if train_split.is_resident else 0.0
    eval_split = Split(config, config.dataset.eval_split, training=False, taken=taken)
    check_classes(train_split.source, eval_split.source)
    continues = workdir.has_checkpoints(path)
    if continues:
        workdir.check_data(path, train_split, eval_split)
    timetable = make_timetable(config, len(train_split))
    model = make_model(config, len(train_split.source.class_names))
    task = make_task(config, model, timetable.steps_per_epoch, timetable.num_steps)
    if task.augment.mix:
        check_even(config.batch_size // len(devices))
    order = TrainOrder(len(train_split), config.batch_size, config.seed, config.augment.repeats)
    variables = None
    if not continues:
        names = train_split.source.class_names
        variables = initial_variables(config, model, train_split.image_shape, names)

    workdir.create(path, config)
    workdir.describe(path, config, train_split, eval_split)
    with Checkpoints(path, config.checkpoint.keep) as checkpoints:
        if checkpoints.steps():
            like = steps.abstract_state(task, train_split.image_shape)
            state = checkpoints.restore("last", like)
        else:
            state = steps.create_state(task, train_split.image_shape, variables)
        start, end = int(state.step), timetable.num_steps

        with (
            Console(start, end) as console,
            MetricsWriter(path, start) as writer,
            ExitStack() as stack,
        ):
            announce.run(
                console,
                config,
                path,
                devices,
                train_split,
                eval_split,
                state,
                task.frozen,
                timetable,
            )
            pictures = Pictures(path, console.warn)
            meter = Meter(config.batch_size, devices.fetch)
            bad_records = BadRecords(path, console.warn)

            train_data = devices.replicate(train_split.load(bad_records).resident)
            eval_data = devices.replicate(eval_split.load(bad_records).resident)
            state = devices.replicate(state)

            def one_step(state, data, batch):
                return steps.train_step(task, state, gather(data, batch))

            together = steps_per_call(
                config.data.steps_per_call, devices.platform, train_split.is_resident
            )
            train_step = devices.train(several(one_step) if together > 1 else one_step)
            eval_step = make_eval_step(devices, task)

            def evaluate_now(give_up: Callable[[], Any]) -> dict[str, Any] | None:
                size = eval_batch_size(config)
                return evaluate(devices, eval_step, state, eval_data, eval_split, size, give_up)

            def batches() -> Iterator[dict[str, np.ndarray]]:
                if together > 1:
                    calls = timetable.calls(start, together)
                    return stacked(order, calls, train_split.share, together, len(devices))
                return train_split.train_batches(order, range(start, end))

            evaluated: dict[str, Any] | None = None
            if stop and start < end:
                raise Interrupted(f"{stop.signal.name} before step {start + 1}")
            compiled_for, first_epoch = None, True
            # Batches go to the devices ahead of time, while earlier steps run.
            feed = stack.enter_context(Ahead(batches(), devices.split))
            for call in timetable.calls(start, together):
                step = call.stop
                batch = meter.take(feed)
                shapes = jax.tree.map(np.shape, batch)
                first, compiles = compiled_for is None, shapes != compiled_for
                if first:
                    console.compiling()
                state, metrics = train_step(state, train_data, batch)
                meter.add(metrics, len(call))
                if compiles:
                    compiled_for = shapes
                    jax.block_until_ready(metrics)
                    meter.restart_clock()
                if first:
                    console.compiled()
                    pictures.samples(*first_images(task, train_split, order))
                    console.start_clock(step)
                    meter.restart_clock()

                stopping = bool(stop)  # asked once: a signal may come at any moment
                evaluated = None
                if timetable.logs(step) or stopping:
                    row = {"step": step, "epoch": round(timetable.epoch(step), 4)}
                    row |= meter.summary()
                    check_loss("training", row["train/loss"], step, checkpoints)
                    if timetable.evaluates(step) and not (stopping and step < end):
                        try:
                            evaluated = evaluate_now(lambda: bool(stop) and step < end)  # noqa: B023
                        except BaseException:  # must not cost what was learned until here
                            writer.write(row)
                            save(checkpoints, devices.fetch(state), None)
                            checkpoints.wait()
                            raise
                        stopping = stopping or evaluated is None
                    if evaluated is not None:
                        row |= {f"eval/{k}": v for k, v in evaluated.items() if k != "examples"}
                        guess = guessing(config.loss, model.num_classes)
                        check_loss("evaluation", evaluated["loss"], step, checkpoints)
                        announce.check_evaluation(console, evaluated, guess)
                    writer.write(row)
                    console.progress(row)
                    an_epoch = step - start >= timetable.steps_per_epoch or step == end
                    if first_epoch and an_epoch and meter.input_wait() is not None:
                        announce.input_wait(console, meter.input_wait())
                        first_epoch = False
                    pictures.curves(at_once=step == end)
                    meter.restart_clock()

                if timetable.saves(step) or stopping or checkpoints.improves(evaluated):
                    save(checkpoints, devices.fetch(state), evaluated)
                    meter.restart_clock()
                if stopping and step < end:
                    checkpoints.wait()
                    raise Interrupted(f"{stop.signal.name} after step {step}; everything is saved")

            checkpoints.wait()
            # Without a step to do, the run being finished, nothing is evaluated yet.
            evaluated = evaluated or evaluate_now(lambda: False)
    return {"split": eval_split.source.split} | evaluated | {"step": end}


def check_classes(one: Source, other: Source) -> None:
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


def save(checkpoints: Checkpoints, state: steps.TrainState, metrics: dict | None) -> None:
    """Saves a state of host arrays, unless it holds something that is not a number."""
    for where, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not np.isfinite(leaf).all():
            raise RunError(
                f"{jax.tree_util.keystr(where)} is not finite after step {state.step};"
                f" {_advice(checkpoints)}"
            )
    checkpoints.save(state, metrics)


def check_loss(what: str, loss: float, step: int, checkpoints: Checkpoints) -> None:
    """Ends the run where a loss is no number any more."""
    if not math.isfinite(loss):
        raise RunError(f"the {what} loss became {loss} by step {step}; {_advice(checkpoints)}")


def _advice(checkpoints: Checkpoints) -> str:
    saved = checkpoints.steps()
    kept = f"step {saved[-1]} is saved" if saved else "nothing was saved yet"
    return f"{kept}. A lower schedule.learning_rate or a longer warm-up often helps"


def first_images(
    task: steps.Task, split: Split, order: TrainOrder
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """At most 64 of the first batch's images as augmented, their labels, and class names."""
    batch = split.samples(order, 64)
    images, labels = batch["image"], batch["label"]
    keys = example_keys(task.seed, 0, np.arange(len(labels)))
    return jax.device_get(jax.jit(task.augment)(images, keys)), labels, split.source.class_names
