"""The training loop: from a configuration and a folder to a trained, evaluated checkpoint."""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np

from train.data.corrupt_records import CorruptRecords
from train.data.prefetch import Prefetcher
from train.engine import nonfinite
from train.engine.callbacks import Callback
from train.engine.early_stopping import EarlyStopping
from train.engine.evaluation import Evaluated, evaluate
from train.engine.experiment import (
    Experiment,
    Sources,
    build_experiment,
    check_same_in_all_processes,
)
from train.engine.meter import make_meter
from train.engine.multi_step import stack_batches, steps_per_execution
from train.engine.predictions import PredictionCollector, write_predictions
from train.engine.preemption import StopAgreement
from train.engine.programs import UNSHARED, Programs
from train.engine.requirements import check_requirements
from train.engine.start import initial_state
from train.engine.step import TrainState, evaluated_variables
from train.reporting import run_summary
from train.reporting.console import Console
from train.reporting.observers import Observers
from train.reporting.samples import first_images
from train.runtime import distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError
from train.runtime.formatting import run_name
from train.runtime.signals import StopRequest
from train.workdir import held_out, run_files, session_ends
from train.workdir.checkpoints import Checkpoints
from train.workdir.metrics_log import has_metrics

MIN_GRADCAM_STEPS = 100  # shorter runs are not worth the time to compile Grad-CAM


class Interrupted(Exception):
    """A signal ended the run after everything was saved."""


def train(
    config: ConfigDict,
    workdir: str,
    stop: StopRequest,
    sources: Sources | None = None,
    callbacks: Sequence[Callback] = (),
    programs: Programs = UNSHARED,
) -> dict[str, Any]:
    """Train a configuration in ``workdir``, or resume the run that is there.

    All processes must call this; process 0 writes.

    Args:
      config: the configuration.
      workdir: the run's folder.
      stop: once it is true, the run finishes the current step and saves.
      sources: the data; default: those of ``config.dataset``.
      callbacks: called in process 0 during the run.
      programs: the compiled steps; runs of one process may share them.

    Returns:
      The evaluation of the final state: ``split``, ``examples``, ``step``, the metrics of the
      task, such as ``top1``, ``loss`` and ``balanced_accuracy``, and ``bad`` if images could not
      be decoded.

    Raises:
      Interrupted: ``stop`` ended the run.
      UsageError, RunError: the run cannot start or continue.
    """
    # All errors of the configuration appear before anything is written, decoded or compiled.
    with distributed.raise_if_any_failed():
        experiment = build_experiment(config, workdir, sources)
    check_same_in_all_processes(config, experiment.train_loader, experiment.eval_loader)
    is_primary = distributed.is_primary()
    with ExitStack() as stack:
        metrics = config.eval.metric, *experiment.step_config.task.headline
        console = Console(experiment.intervals.num_steps, is_primary, metrics)
        stack.enter_context(console)
        with distributed.raise_if_any_failed():
            checkpoints = open_workdir(experiment, stack, console) if is_primary else None
        run_files.check_shared(workdir)
        state = initial_state(experiment, checkpoints)
        start, end = int(state.step), experiment.intervals.num_steps
        with distributed.raise_if_any_failed():
            check_requirements(experiment, state)
            observers = Observers(experiment, start, console, callbacks) if is_primary else None
        if observers is not None:
            stack.enter_context(observers)
            run_summary.print_summary(console, experiment, state)
            run_files.add_session(workdir, start, end, experiment.batch_sizes.batch_norm)
            stack.enter_context(session_ends.recorded_end(workdir))
        return Loop(experiment, state, checkpoints, console, observers, stop, programs).run()


def open_workdir(experiment: Experiment, stack: ExitStack, console: Console) -> Checkpoints:
    """Lock the workdir for this trainer, and write the files that describe the run."""
    config, workdir = experiment.config, experiment.workdir
    stack.enter_context(run_files.exclusive_lock(workdir, console.warn))
    # Another trainer may have run between the checks of build_experiment and the lock.
    if bool(run_files.saved_steps(workdir)) != experiment.resumes:
        raise RunError(
            f"another trainer has used {workdir!r} meanwhile; run the same command again"
        )
    run_files.create(workdir, config)
    if experiment.resumes and run_files.find_description(workdir) is None:
        console.warn(
            f"run.json of {workdir!r} is missing or corrupt; rewriting it from the current data"
        )
    loaders = experiment.train_loader, experiment.eval_loader
    run_files.describe(workdir, config, *loaders, experiment.step_config.task.describe())
    held_out.write_held_out(workdir, experiment.eval_loader.source)
    checkpoints = Checkpoints(
        workdir, config.checkpoint.max_to_keep, console.warn, run_files.best_by(config)
    )
    return stack.enter_context(checkpoints)


class Loop:
    """The steps of a run from a state on, and everything that happens between them.

    Args:
      experiment: everything that does not change.
      state: the state to start from, as host arrays.
      checkpoints, observers: outputs of process 0; None in other processes.
      console: progress output.
      stop: request to end early.
      programs: the compiled steps.
    """

    def __init__(
        self,
        experiment: Experiment,
        state: TrainState,
        checkpoints: Checkpoints | None,
        console: Console,
        observers: Observers | None,
        stop: StopRequest,
        programs: Programs = UNSHARED,
    ):
        self.experiment, self.console = experiment, console
        self.checkpoints, self.observers = checkpoints, observers
        self.start, self.end = int(state.step), experiment.intervals.num_steps
        config, devices = experiment.config, experiment.devices
        train_loader, eval_loader = experiment.train_loader, experiment.eval_loader
        self.stopping = StopAgreement(stop, devices)
        self.early_stopping = EarlyStopping(config, experiment.workdir, self.start)
        self.end_if_stopped(self.start)
        self.meter = make_meter(experiment)
        if self.checkpoints is not None and self.start:  # only process 0 writes rows
            self.meter.resume(self.checkpoints.read_window(self.start))
        self.nonfinite_guard = nonfinite.NonFiniteGuard(experiment, self.wait_saved)
        self.last_saved = time.monotonic()
        self.compiled_shapes: Any = None  # of the last batch
        self.input_wait_reported = False
        self.collector: PredictionCollector | None = None  # of the last evaluation

        with distributed.raise_if_any_failed():
            process = distributed.process_index()
            corrupt_records = CorruptRecords(experiment.workdir, console.warn, process)
            train_data = train_loader.load(corrupt_records).cached
            eval_data = eval_loader.load(corrupt_records).cached
        self.train_data = devices.replicate(train_data)
        self.eval_data = devices.replicate(eval_data)
        self.state = devices.replicate(state)

        self.steps_per_call = steps_per_execution(
            config.steps_per_execution, devices.platform, train_loader.cached_on_device
        )
        self.train_step = programs.train_step(experiment, self.steps_per_call)
        self.eval_step = programs.eval_step(experiment)

    def run(self) -> dict[str, Any]:
        """Train to the end, and return the evaluation of the final state."""
        if self.start < self.end and self.stopping.at_start():
            raise Interrupted(f"{self.stopping.name} before step {self.start + 1}")
        evaluation = self.repeat_interrupted_evaluation()
        # Batches are sent to the devices ahead of time, while earlier steps run.
        with Prefetcher(self.batches(), self.experiment.devices.split) as feed:
            calls = self.experiment.intervals.calls(self.start, self.steps_per_call)
            for call in itertools.takewhile(lambda call: call.start < self.end, calls):
                stopping = self.stopping.after(self.step(feed, call))
                evaluation = self.after(call.stop, stopping)
        self.wait_saved()
        # A run that was already finished has no steps left, but its evaluation is returned too.
        evaluation = evaluation or self.evaluate(self.end)
        if self.end < self.experiment.intervals.num_steps:
            self.console.info(self.early_stopping.describe(self.end))
        source = self.experiment.eval_loader.source
        result = {"split": source.split} | evaluation | {"step": self.end}
        if self.observers is not None:
            has_probabilities = self.experiment.step_config.task.probabilities is not None
            if self.experiment.config.dataset.fold and has_probabilities:
                path = os.path.join(self.experiment.workdir, held_out.PREDICTIONS)
                write_predictions(path, self.collector.predictions(), source)
            self.observers.finish(result)
        return result

    def repeat_interrupted_evaluation(self) -> dict[str, Any] | None:
        """Evaluate the restored state if that was due but was interrupted; else return None."""
        step, intervals = self.start, self.experiment.intervals
        if not step or not (intervals.evaluates(step) or step == self.end):
            return None
        done = self.checkpoints is not None and self.checkpoints.has_metrics(step)
        if distributed.allgather(done)[0]:
            return None
        evaluation = self.evaluate(step)
        row = intervals.place(step) | self.meter.row(step)
        row |= self.check_evaluation(evaluation, step)
        if self.observers is not None:
            self.observers.log(row)
            self.checkpoints.attach_metrics(step, evaluation)
        self.early_stopping.evaluated(step, evaluation)
        self.end_if_stopped(step)
        return evaluation

    def end_if_stopped(self, step: int) -> None:
        """Make ``step`` the last one if early stopping has ended the run, and write why."""
        if self.early_stopping.reason and step < self.end:
            self.end = step
        if self.end < self.experiment.intervals.num_steps and self.observers is not None:
            run_files.add_early_end(self.experiment.workdir, self.early_stopping.describe(step))

    def batches(self) -> Iterable[dict[str, np.ndarray]]:
        """Return this process's share of the remaining batches."""
        sampler, loader = self.experiment.sampler, self.experiment.train_loader
        if self.steps_per_call > 1:
            calls = self.experiment.intervals.calls(self.start, self.steps_per_call)
            count = len(self.experiment.devices.local)
            return stack_batches(sampler, calls, loader.shard, self.steps_per_call, count)
        return loader.train_batches(sampler, range(self.start, self.end))

    def step(self, feed: Iterator[Any], call: range) -> Any:
        """Start the steps of one call; return the earlier result that was waited for, if any."""
        batch = self.meter.next_batch(feed)
        shapes = jax.tree.map(np.shape, batch)
        first, compiles = self.compiled_shapes is None, shapes != self.compiled_shapes
        if first:
            self.console.compiling()
        if self.observers is not None:
            self.observers.before_step(call, self.state)
        self.state, metrics = self.train_step(
            self.state, self.train_data, batch, self.stopping.flag()
        )
        finished = self.meter.add(metrics, len(call))
        if compiles:
            self.compiled_shapes = shapes
            jax.block_until_ready(metrics)
            self.meter.restart_clock()
        if first:
            self.console.compiled()
            if self.observers is not None:
                self.observers.draw_samples(lambda: first_images(self.experiment))
            self.console.start_clock(call.stop)
            self.meter.restart_clock()
        if self.observers is not None and self.observers.after_step(call, metrics):
            self.meter.restart_clock()
        return finished

    def after(self, step: int, stopping: bool) -> dict[str, Any] | None:
        """Do whatever is due after ``step`` steps; return the evaluation if there was one."""
        intervals, evaluation, last = self.experiment.intervals, None, step == self.end
        if self.checkpoints is not None:
            self.checkpoints.check()
        saves = intervals.saves(step) or self.save_minutes_elapsed()
        if intervals.logs(step) or saves or stopping:
            row = intervals.place(step)
            self.nonfinite_guard.check(row | self.meter.collect(step), self.meter.first_nonfinite)
            if intervals.logs(step):
                self.early_stopping.logging(row)
                self.end_if_stopped(step)
            last = step == self.end
            if last:  # before the evaluation, which may take long
                self.save(None)
            row |= self.meter.row(step)
            if last or (intervals.evaluates(step) and not stopping):
                evaluation = self.evaluate_or_save(row)
                stopping = stopping or evaluation is None
            if evaluation is not None and not last:
                self.early_stopping.evaluated(step, evaluation)
                self.end_if_stopped(step)
            self.log(row, evaluation)
        if last:
            if self.checkpoints is not None and evaluation is not None:
                self.checkpoints.attach_metrics(step, evaluation)
        elif self.checkpoints is not None:
            if saves or stopping or step == self.end or self.checkpoints.is_best(evaluation):
                self.save(evaluation)
        if stopping and (step < self.end or evaluation is None):
            self.wait_saved()
            raise Interrupted(f"{self.stopping.name} after step {step}; everything is saved")
        return evaluation

    def evaluate(
        self, step: int, give_up: Callable[[Any], bool] = lambda _: False
    ) -> dict[str, Any] | None:
        """Evaluate the current state, after ``step`` steps; return None if ``give_up`` did."""
        experiment, task = self.experiment, self.experiment.step_config.task
        self.collector = collector = PredictionCollector(task, experiment.model.num_classes)
        evaluation = evaluate(
            task,
            experiment.devices,
            self.eval_step,
            self.state,
            self.eval_data,
            experiment.eval_loader,
            experiment.batch_sizes.eval,
            give_up,
            self.stopping.flag,
            collector.add,
            collector.summarize,
        )
        if self.observers is not None and evaluation is not None:
            self.observers.set_evaluation(lambda: self.evaluated(evaluation, step, collector))
        return evaluation

    def evaluated(
        self, evaluation: dict[str, Any], step: int, collector: PredictionCollector
    ) -> Evaluated:
        """Return an evaluation with its predictions; after the last step also the variables."""
        experiment, loader, variables = self.experiment, self.experiment.eval_loader, None
        if step == self.end >= MIN_GRADCAM_STEPS:
            state = experiment.devices.fetch(self.state)
            variables = evaluated_variables(experiment.step_config, state)
        result = {"split": loader.source.split} | evaluation | {"step": step}
        data = collector.predictions(), loader, experiment.config, experiment.model, variables
        return Evaluated(result, *data, run_name(experiment.workdir))

    def evaluate_or_save(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Evaluate; if that fails, save and log what was learned so far before raising."""
        try:
            return self.evaluate(row["step"], self.stopping.after)
        except BaseException:
            if self.observers is not None:
                self.observers.log(row)
                if row["step"] != self.end:  # otherwise already saved
                    self.save(None)
                self.wait_saved()
            raise

    def log(self, row: dict[str, Any], evaluation: dict[str, Any] | None) -> None:
        """Write and show a row of metrics, unless there are none yet."""
        step = row["step"]
        if evaluation is not None:
            row |= self.check_evaluation(evaluation, step)
        if not has_metrics(row):  # such as before a checkpoint within a window
            return
        self.console.progress(row)
        first_epoch = step - self.start < self.experiment.intervals.steps_per_epoch
        due = not self.input_wait_reported and (not first_epoch or step == self.end)
        if due and (input_wait := self.meter.input_wait()) is not None:
            streams = not self.experiment.train_loader.cached_on_device
            run_summary.print_input_wait(self.console, input_wait, streams)
            self.input_wait_reported = True
        if self.observers is not None:
            self.observers.log(row)
            self.observers.update(row, evaluation, force=step == self.end)
        self.meter.restart_clock()

    def check_evaluation(self, evaluation: dict[str, Any], step: int) -> dict[str, Any]:
        """Check the loss of an evaluation, and return its part of a row of metrics."""
        config, loss = self.experiment.config, evaluation["loss"]
        nonfinite.check_evaluation(self.experiment, loss, step)
        if self.observers is not None and not config.smoke:  # a smoke run learns nothing
            step_config = self.experiment.step_config
            chance = step_config.task.chance_loss(step_config.model.num_classes)
            run_summary.check_evaluation_loss(self.console, loss, chance)
        return {f"eval/{name}": v for name, v in evaluation.items() if name != "examples"}

    def save_minutes_elapsed(self) -> bool:
        """Return whether to save because of ``checkpoint.every_minutes``."""
        minutes = self.experiment.config.checkpoint.every_minutes
        due = time.monotonic() - self.last_saved > 60 * minutes
        return self.checkpoints is not None and bool(minutes) and due

    def wait_saved(self) -> None:
        """Wait until the checkpoint being saved is on disk."""
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def save(self, evaluation: dict[str, Any] | None) -> None:
        """Start saving the state; raise RunError if it is not finite."""
        if self.checkpoints is None:
            return
        state = self.experiment.devices.fetch(self.state)
        self.nonfinite_guard.check_state(state)
        self.checkpoints.save(state, evaluation, self.meter.window)
        self.last_saved = time.monotonic()
        self.meter.restart_clock()
