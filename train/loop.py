"""The training loop: from a configuration and a folder to a trained, evaluated checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import jax
import ml_collections
import numpy as np

from train.data.augment.mixup import Targets
from train.data.augment.pipeline import example_keys
from train.data.prefetch import Prefetcher
from train.data.corrupt_records import CorruptRecords
from train.engine import mfu, nonfinite
from train.engine.evaluation import Evaluated, eval_batch_size, evaluate, make_eval_step, weights_of
from train.engine.experiment import Experiment, build_experiment, check_alike
from train.engine.meter import Meter
from train.engine.multi_step import run_steps, stack_batches, steps_per_execution
from train.engine.predictions import PredictionCollector
from train.engine.preemption import StopAgreement, with_stop_flag
from train.engine.step import (
    TrainState,
    abstract_state,
    create_state,
    evaluated_variables,
    train_step,
)
from train.reporting import run_summary
from train.reporting.console import Console
from train.reporting.run_report import LiveReport
from train.runtime import distributed
from train.runtime.errors import RunError
from train.runtime.formatting import MAX_CAPTION, truncate
from train.runtime.signals import StopRequest
from train.tasks.classification import chance_loss
from train.workdir import run_files
from train.workdir.checkpoints import Checkpoints, restore_on_all
from train.workdir.metrics_log import MetricsLog

LEAST_EXPLAINED = 100  # steps of a run whose net is worth the time to compile Grad-CAM


class Interrupted(Exception):
    """A signal ended the run after everything was saved."""


def train(config: ml_collections.ConfigDict, path: str, stop: StopRequest) -> dict[str, Any]:
    """Trains what ``config`` says in the workdir ``path``, or continues it there.

    Once ``stop`` is true it finishes the step, saves and raises Interrupted. Of several
    processes all must call it; the first one writes. Gives the final state's evaluation:
    ``split``, ``examples``, ``top1``, ``loss``, ``step``, with six classes or more ``top5``, and
    ``bad`` where images could not be decoded. Raises UsageError or RunError, too.
    """
    # What is wrong shows before anything is written, decoded or compiled.
    with distributed.raise_if_any_failed():
        run = build_experiment(config, path)
    check_alike(config, run.train_loader, run.eval_loader)
    with ExitStack() as stack:
        console = stack.enter_context(Console(run.intervals.num_steps, distributed.is_primary()))
        with distributed.raise_if_any_failed():
            checkpoints = open_workdir(run, stack, console) if distributed.is_primary() else None
        run_files.check_shared(path)
        state = first_state(run, checkpoints)
        with distributed.raise_if_any_failed():
            writer = MetricsLog(path, int(state.step)) if distributed.is_primary() else None
        if writer is not None:
            stack.enter_context(writer)
            run_summary.print_summary(console, run, state)
            run_files.add_session(
                path,
                int(state.step),
                run.intervals.num_steps,
                run_summary.batch_norm_images(run.config, run.devices),
            )
        loop = Loop(run, state, checkpoints, console, writer, stop)
        return loop.run_all()


def open_workdir(run: Experiment, stack: ExitStack, console: Console) -> Checkpoints:
    """Takes the folder for this trainer alone, and writes there what describes the run."""
    stack.enter_context(run_files.exclusive_lock(run.path, console.warn))
    if bool(run_files.saved_steps(run.path)) != run.resumes:  # since build_experiment() looked
        raise RunError(f"{run.path!r} was trained in meanwhile; give the same command again")
    run_files.create(run.path, run.config)
    if run.resumes and run_files.find_description(run.path) is None:
        console.warn(
            f"run.json of {run.path!r} is missing or damaged; it is written anew, from the data as"
            " they are now"
        )
    run_files.describe(run.path, run.config, run.train_loader, run.eval_loader)
    return stack.enter_context(
        Checkpoints(run.path, run.config.checkpoint.max_to_keep, console.warn)
    )


def first_state(run: Experiment, checkpoints: Checkpoints | None) -> TrainState:
    """The last checkpoint that can be read, or the state before the first step.

    ``checkpoints`` are the first process's, which decides which one it is.
    """
    if not distributed.allgather(run.resumes)[0]:
        return create_state(run.step_config, run.image_shape, run.variables)
    like = abstract_state(run.step_config, run.image_shape)
    with distributed.raise_if_any_failed():
        opened = nullcontext(checkpoints) if checkpoints is not None else Checkpoints(run.path)
    with opened as reader:
        return restore_on_all(reader, "last", like)


class Loop:
    """The steps of a run from ``state`` on, and all that happens between them.

    Args:
      run: what does not change.
      state: host arrays.
      checkpoints, writer: where this process writes; None where another one does.
      console: speaks to the reader.
      stop: asks to end early.
    """

    def __init__(
        self,
        run: Experiment,
        state: TrainState,
        checkpoints: Checkpoints | None,
        console: Console,
        writer: MetricsLog | None,
        stop: StopRequest,
    ):
        self.run, self.console, self.writer, self.checkpoints = run, console, writer, checkpoints
        self.start, self.end = int(state.step), run.intervals.num_steps
        devices = run.devices
        self.stopping = StopAgreement(stop, devices)
        self.meter = Meter(
            run.config.batch_size,
            devices.fetch,
            run.step_config.skip_nonfinite,
            mfu.share_of_an_image(run),
        )
        self.pictures = None if writer is None else LiveReport(run.path, console.warn)
        self.watch = nonfinite.NonFiniteGuard(run, self.wait_saved)
        self.last_saved = time.monotonic()
        self.compiled_for: Any = None  # the shapes of the batches that the step was compiled for
        self.input_told = False

        with distributed.raise_if_any_failed():
            corrupt_records = CorruptRecords(run.path, console.warn, distributed.place()[0])
            train_data = run.train_loader.load(corrupt_records).cached
            eval_data = run.eval_loader.load(corrupt_records).cached
        self.train_data = devices.replicate(train_data)
        self.eval_data = devices.replicate(eval_data)
        self.state = devices.replicate(state)

        def step(state, data, batch):
            return train_step(run.step_config, state, run.train_loader.examples(data, batch))

        self.together = steps_per_execution(
            run.config.steps_per_execution, devices.platform, run.train_loader.cached_on_device
        )
        self.train_step = devices.train(
            with_stop_flag(run_steps(step) if self.together > 1 else step)
        )
        self.eval_step = make_eval_step(devices, run.step_config, run.eval_loader, run.config.loss)

    def run_all(self) -> dict[str, Any]:
        """Trains to the end, and gives the final state's evaluation."""
        if self.start < self.end and self.stopping.at_start():
            raise Interrupted(f"{self.stopping.name} before step {self.start + 1}")
        evaluated = self.evaluate_what_was_interrupted()
        calls = self.run.intervals.calls(self.start, self.together)
        # Batches go to the devices ahead of time, while earlier steps run.
        with Prefetcher(self.batches(), self.run.devices.split) as feed:
            for call in calls:
                finished = self.step(feed, call)
                evaluated = self.after(call.stop, self.stopping.after(finished))
        self.wait_saved()
        # A finished run has no step to do and nothing to catch up with, and yet is asked.
        evaluated = evaluated or self.evaluate(self.end)
        return {"split": self.run.eval_loader.source.split} | evaluated | {"step": self.end}

    def evaluate_what_was_interrupted(self) -> dict[str, Any] | None:
        """The evaluation of the step that the run goes on from, where it was due and never done."""
        if not self.start or not self.run.intervals.evaluates(self.start):
            return None
        own = self.checkpoints is not None and self.checkpoints.has_metrics(self.start)
        if distributed.allgather(own)[0]:
            return None
        evaluated = self.evaluate(self.start)
        row = {"step": self.start, "epoch": round(self.run.intervals.epoch(self.start), 4)}
        row |= self.told(evaluated, self.start)
        if self.writer is not None:
            self.writer.write(row)
            self.checkpoints.attach_metrics(self.start, evaluated)
        return evaluated

    def batches(self) -> Iterable[dict[str, np.ndarray]]:
        """This process's share of the batches, from the first step that is left on."""
        run = self.run
        if self.together > 1:
            calls = run.intervals.calls(self.start, self.together)
            count = len(run.devices.local)
            return stack_batches(run.order, calls, run.train_loader.shard, self.together, count)
        return run.train_loader.train_batches(run.order, range(self.start, self.end))

    def step(self, feed: Iterator[Any], call: range) -> Any:
        """Starts the steps of one call; gives the result of the one that it waited for, if any."""
        batch = self.meter.take(feed)
        shapes = jax.tree.map(np.shape, batch)
        first, compiles = self.compiled_for is None, shapes != self.compiled_for
        if first:
            self.console.compiling()
        self.state, metrics = self.train_step(
            self.state, self.train_data, batch, self.stopping.flag()
        )
        finished = self.meter.add(metrics, len(call))
        if compiles:
            self.compiled_for = shapes
            jax.block_until_ready(metrics)
            self.meter.restart_clock()
        if first:
            self.console.compiled()
            if self.pictures is not None:
                self.pictures.draw_samples(lambda: first_images(self.run))
            self.console.start_clock(call.stop)
            self.meter.restart_clock()
        return finished

    def after(self, step: int, stopping: bool) -> dict[str, Any] | None:
        """What is due once ``step`` steps were started; gives the evaluation if that was."""
        intervals, evaluated, last = self.run.intervals, None, step == self.end
        if self.checkpoints is not None:
            self.checkpoints.check()
        saves = intervals.saves(step) or self.minutes_are_over()
        if intervals.logs(step) or saves or stopping:
            row = {"step": step, "epoch": round(intervals.epoch(step), 4)} | self.meter.summary()
            since = step - sum(self.meter.last_steps)
            first = self.meter.first_nonfinite
            self.watch.check(row, None if first is None else since + first + 1, step)
            if last:  # which may take long to evaluate
                self.save(None)
            if intervals.evaluates(step) and (last or not stopping):
                evaluated = self.evaluate_or_save(row)
                stopping = stopping or evaluated is None
            self.tell(row, evaluated)
        if last:
            if self.checkpoints is not None and evaluated is not None:
                self.checkpoints.attach_metrics(step, evaluated)
        elif saves or stopping or self.is_best(evaluated):
            self.save(evaluated)
        if stopping and (not last or evaluated is None):
            self.wait_saved()
            raise Interrupted(f"{self.stopping.name} after step {step}; everything is saved")
        return evaluated

    def evaluate(
        self, step: int, give_up: Callable[[Any], bool] = lambda _: False
    ) -> dict[str, Any] | None:
        """The evaluation of the state as it is, after ``step``; None where ``give_up`` said so
        meanwhile."""
        run, collector = self.run, PredictionCollector(self.run.model.num_classes)
        evaluated = evaluate(
            run.devices,
            self.eval_step,
            self.state,
            self.eval_data,
            run.eval_loader,
            eval_batch_size(run.config),
            give_up,
            self.stopping.flag,
            collector.take,
        )
        if self.pictures is not None and evaluated is not None:
            self.pictures.set_evaluation(lambda: self.in_full(evaluated, step, collector))
        return evaluated

    def in_full(
        self, evaluated: dict[str, Any], step: int, collector: PredictionCollector
    ) -> Evaluated:
        """An evaluation with what was said of each image; with the net once the run is done."""
        run, variables = self.run, None
        if step == self.end >= LEAST_EXPLAINED:
            variables = evaluated_variables(run.step_config, run.devices.fetch(self.state))
        split = run.eval_loader
        return Evaluated(
            result={"split": split.source.split} | evaluated | {"step": step},
            predictions=collector.predictions(),
            split=split,
            config=run.config,
            weights=weights_of(run.config),
            model=run.model,
            variables=variables,
        )

    def evaluate_or_save(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The evaluation; what ends it must not cost what was learned until here."""
        try:
            return self.evaluate(row["step"], self.stopping.after)
        except BaseException:
            if self.writer is not None:
                self.writer.write(row)
                if row["step"] != self.end:  # that is saved already
                    self.save(None)
                self.wait_saved()
            raise

    def tell(self, row: dict[str, Any], evaluated: dict[str, Any] | None) -> None:
        """Writes a row of metrics and shows it."""
        run, step = self.run, row["step"]
        if evaluated is not None:
            row |= self.told(evaluated, step)
        self.console.progress(row)
        an_epoch = step - self.start >= run.intervals.steps_per_epoch or step == self.end
        if not self.input_told and an_epoch and self.meter.input_wait() is not None:
            streams = not run.train_loader.cached_on_device
            run_summary.print_input_wait(self.console, self.meter.input_wait(), streams)
            self.input_told = True
        if self.writer is not None:
            self.writer.write(row)
            self.pictures.update(force=step == self.end)
        self.meter.restart_clock()

    def told(self, evaluated: dict[str, Any], step: int) -> dict[str, Any]:
        """An evaluation's part of a row of metrics, once it is looked at."""
        nonfinite.check_evaluation(self.run, evaluated["loss"], step)
        guess = chance_loss(self.run.config.loss, self.run.model.num_classes)
        if self.writer is not None and not self.run.config.smoke:  # which has learned nothing
            run_summary.check_evaluation_loss(self.console, evaluated["loss"], guess)
        return {f"eval/{k}": v for k, v in evaluated.items() if k != "examples"}

    def is_best(self, evaluated: dict[str, Any] | None) -> bool:
        """Whether an evaluation is the best so far; only the process that saves knows."""
        return self.checkpoints is not None and self.checkpoints.is_best(evaluated)

    def minutes_are_over(self) -> bool:
        """Whether ``checkpoint.every_minutes`` asks to save."""
        minutes = self.run.config.checkpoint.every_minutes
        due = time.monotonic() - self.last_saved > 60 * minutes
        return self.checkpoints is not None and bool(minutes) and due

    def wait_saved(self) -> None:
        """Returns once what was handed over to be saved is on the disk."""
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def save(self, evaluated: dict[str, Any] | None) -> None:
        """Starts to save the state, unless it holds something that is not a number."""
        if self.checkpoints is None:
            return
        state = self.run.devices.fetch(self.state)
        for where, leaf in jax.tree_util.tree_leaves_with_path(state):
            if not np.isfinite(leaf).all():
                self.wait_saved()
                raise RunError(
                    f"{jax.tree_util.keystr(where)} is not finite after step {state.step};"
                    f" {nonfinite.advice(self.run.path)}"
                )
        self.checkpoints.save(state, evaluated)
        self.last_saved = time.monotonic()
        self.meter.restart_clock()


def first_images(run: Experiment) -> tuple[np.ndarray, list[str]]:
    """At most 64 of the first batch's images as the net sees them, and what their classes are."""
    batch = run.train_loader.samples(run.order, 64)
    even = len(batch["label"]) // 2 * 2  # or there would be one that has none to be mixed with
    images, labels = (batch[name][: even or None] for name in ("image", "label"))
    keys = example_keys(run.step_config.seed, 0, np.arange(len(labels)))
    augmented, targets = jax.device_get(
        jax.jit(run.step_config.augment.batch)(images, labels, keys)
    )
    return augmented, captions(targets, run.train_loader.source.class_names)


def captions(targets: Targets, class_names: Sequence[str]) -> list[str]:
    """The class of each image, or of mixed ones both with their shares."""
    if targets.other is None:
        return [truncate(class_names[label], MAX_CAPTION) for label in targets.label]
    told = []
    for label, other, share in zip(*targets, strict=True):
        if share >= 0.995 or label == other:
            told.append(truncate(class_names[label], MAX_CAPTION))
        else:
            parts = sorted([(share, label), (1 - share, other)], reverse=True)
            names = [(truncate(class_names[i], MAX_CAPTION), part) for part, i in parts]
            told.append("\n".join(f"{name} {part:.0%}" for name, part in names))
    return told
