"""Measurements of the first steps of a run, in a temporary folder.

Data, compiled step, evaluation and checkpoints are those of the run; the trained weights are
discarded.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from train.data.prefetch import Prefetcher
from train.engine.experiment import Experiment
from train.engine.step import TrainState
from train.loop import Loop
from train.plan import memory
from train.reporting.console import Console
from train.runtime import host_memory
from train.runtime.signals import StopRequest
from train.workdir.checkpoints import Checkpoints

WARM_UP_CALLS = 2  # not timed: cold caches, and batches that were loaded ahead
MAX_SECONDS = 6.0  # of a measurement
MAX_STEPS = 400
MIN_EVAL_STEPS = 3
MAX_SAVES = 3
# Batches that wait for the step, and those of steps in flight, which are not freed yet.
BATCHES_IN_MEMORY = 7


@dataclasses.dataclass(frozen=True)
class MemoryUsage:
    """Memory in bytes.

    Attributes:
      step_bytes: memory of the compiled step on each device.
      needed_bytes: peak memory of the run: of the host on a CPU, otherwise of each device.
      limit_bytes: available memory; None if unknown.
    """

    step_bytes: int
    needed_bytes: int
    limit_bytes: int | None

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as known."""
        return self.limit_bytes is None or self.needed_bytes <= self.limit_bytes


@dataclasses.dataclass(frozen=True)
class Timings:
    """Measured times in seconds.

    Attributes:
      step_seconds: a step of the largest images, including its input.
      input_seconds: a batch of the input pipeline without training; None if the data are cached
        on the device or the run has too few steps.
      evaluation_seconds: an evaluation of the whole split, after compilation.
      evaluation_compile_seconds: until the first step of an evaluation is compiled.
      save_seconds: a checkpoint.
      save_blocking_seconds: the part of a checkpoint during which no step can run.
    """

    step_seconds: float
    input_seconds: float | None
    evaluation_seconds: float
    evaluation_compile_seconds: float
    save_seconds: float
    save_blocking_seconds: float


class DryRun:
    """The loop of a run in the folder ``scratch``, with a compiled training step.

    Starts at the first of the steps with the largest images.

    Args:
      experiment: the run.
      state: its first state, as host arrays.
      scratch: temporary folder.
      console: progress output.

    Attributes:
      load_seconds: time to load the data and the first batch.
      compile_seconds: time to compile the training step.
    """

    def __init__(self, experiment: Experiment, state: TrainState, scratch: str, console: Console):
        self.experiment = dataclasses.replace(experiment, workdir=scratch)
        self._console = console
        began = time.monotonic()
        with console.stage("loading data"):
            self.loop = Loop(self.experiment, state, None, console, None, StopRequest())
            self.loop.start += int(np.argmax(image_sizes(experiment, self.loop.start)))
            self._batch = next(iter(self.loop.batches()))
        self.load_seconds = time.monotonic() - began
        self._jitted_step, began = self.loop.train_step, time.monotonic()
        with console.stage("compiling the training step"):
            self.loop.train_step = self._compile(self._batch)
        self.compile_seconds = time.monotonic() - began
        self._step_memory = memory.step_memory(self.loop.train_step)
        self._resident_bytes = host_memory.resident_memory()
        self._state_bytes = memory.tree_bytes(state)

    def memory(self) -> MemoryUsage:
        """Return the peak memory, from the compiled step and from the peak measured so far."""
        step, devices = self._step_memory, self.experiment.devices
        local = devices.local
        batches = BATCHES_IN_MEMORY * memory.tree_bytes(self._batch) // len(local)
        if devices.platform != "cpu":
            stats = local[0].memory_stats() or {}
            needed = max(step.total + batches, stats.get("peak_bytes_in_use", 0))
            return MemoryUsage(step.total, needed, stats.get("bytes_limit"))
        # On a CPU everything is memory of the process: libraries, compiler and arrays are counted
        # already; a checkpoint copies the state twice and reads it back.
        needed = self._resident_bytes + len(local) * (step.other + batches) + 3 * self._state_bytes
        return MemoryUsage(
            step.total, max(needed, host_memory.peak_memory()), host_memory.host_limit()
        )

    def step_bytes(self, batch_size: int) -> int:
        """Return the memory of the step compiled for another batch size, on each device."""
        batch = {
            name: np.resize(array, (batch_size, *array.shape[1:]))
            if name in ("record", "image", "label")
            else array
            for name, array in self._batch.items()
        }
        return memory.step_memory(self._compile(batch)).total

    def measure(self) -> Timings:
        """Run some steps, part of an evaluation and some checkpoints, and return the times."""
        loop, experiment, stage = self.loop, self.experiment, self._console.stage
        loop.compiled_shapes = jax.tree.map(np.shape, experiment.devices.split(self._batch))
        with stage("timing steps"):
            step = self._time_steps()
        feed = None
        if not experiment.train_loader.cached_on_device:
            with stage("timing the input pipeline"):
                feed = self._time_input()
        with stage("compiling and timing an evaluation"):
            evaluation = self._time_evaluation()
        with stage("timing a checkpoint"):
            checkpoint = self._time_checkpoint()
        return Timings(step, feed, *evaluation, *checkpoint)

    def _compile(self, batch: dict[str, np.ndarray]) -> Any:
        loop, devices = self.loop, self.experiment.devices
        arguments = (loop.state, loop.train_data, devices.split(batch), loop.stopping.flag())
        return self._jitted_step.lower(*arguments).compile()

    def _feed(self) -> Prefetcher:
        return Prefetcher(self.loop.batches(), self.experiment.devices.split)

    def _calls(self) -> Iterator[range]:
        return self.experiment.intervals.calls(self.loop.start, self.loop.steps_per_call)

    def _time_steps(self) -> float:
        loop, calls, count = self.loop, self._calls(), 0
        few = loop.end - loop.start <= 2 * WARM_UP_CALLS * loop.steps_per_call
        with self._feed() as feed:
            for call in itertools.islice(calls, 0 if few else WARM_UP_CALLS):
                loop.step(feed, call)
            jax.block_until_ready(loop.state)
            began = time.monotonic()
            for call in calls:
                loop.step(feed, call)
                count += len(call)
                if time.monotonic() - began > MAX_SECONDS or count >= MAX_STEPS:
                    break
            jax.block_until_ready(loop.state)
            return (time.monotonic() - began) / count

    def _time_input(self) -> float | None:
        count = 0
        with self._feed() as feed:
            for _ in range(WARM_UP_CALLS):
                next(feed, None)
            began = time.monotonic()
            for count, batch in enumerate(feed, 1):  # noqa: B007 (used after the loop)
                jax.block_until_ready(batch)
                if time.monotonic() - began > MAX_SECONDS / 2:
                    break
            return (time.monotonic() - began) / count if count else None

    def _time_evaluation(self) -> tuple[float, float]:
        """Return the times of a whole evaluation and of its compilation."""
        loop, experiment = self.loop, self.experiment
        began = time.monotonic()
        loop.evaluate(loop.start, lambda _: True)
        compile_seconds, began = time.monotonic() - began, time.monotonic()
        times: list[float] = []

        def give_up(result: Any) -> bool:
            if result is not None:
                times.append(time.monotonic() - began)
            return len(times) >= MIN_EVAL_STEPS and times[-1] > MAX_SECONDS

        if loop.evaluate(loop.start, give_up) is not None:
            return time.monotonic() - began, compile_seconds
        batches = -(-len(experiment.eval_loader) // experiment.batch_sizes.eval)
        return times[-1] / len(times) * batches, compile_seconds

    def _time_checkpoint(self) -> tuple[float, float]:
        """Return the times of a checkpoint and of its blocking part.

        On a CPU more checkpoints follow, each beside a step as in the run: not all of their memory
        is freed, and it accumulates over the first few.
        """
        loop, experiment = self.loop, self.experiment
        devices, intervals = experiment.devices, experiment.intervals
        saves = sum(map(intervals.saves, range(loop.start + 1, loop.end + 1)))
        repeats = min(MAX_SAVES, saves) if devices.platform == "cpu" else 0
        keep = experiment.config.checkpoint.max_to_keep
        with Checkpoints(experiment.workdir, keep) as checkpoints, self._feed() as feed:
            began = time.monotonic()
            checkpoints.save(devices.fetch(loop.state))
            blocking = time.monotonic() - began
            checkpoints.wait()
            seconds = time.monotonic() - began
            for number, call in enumerate(itertools.islice(self._calls(), repeats + 1)):
                loop.step(feed, call)
                if number < repeats:
                    checkpoints.save(devices.fetch(loop.state))
            jax.block_until_ready(loop.state)
            return seconds, blocking


def image_sizes(experiment: Experiment, start: int) -> np.ndarray:
    """Return the side of the training images in pixels at each step from ``start`` on."""
    intervals, sizes = experiment.intervals, experiment.train_loader.sizes
    steps = range(start, intervals.num_steps)
    return np.array([sizes.at(step / intervals.steps_per_epoch) for step in steps])


def batch_size_multiple(experiment: Experiment) -> int:
    """Return the number that every valid batch size is a multiple of."""
    config = experiment.config
    parts = len(experiment.devices) * config.grad_accum_steps
    pairs = 2 if experiment.step_config.augment.mix else 1
    return int(np.lcm(parts * pairs, config.augment.repeated_aug))


def largest_batch(dry_run: DryRun, usage: MemoryUsage) -> int | None:
    """Return the largest batch size that should fit, linearly from the step at two batch sizes.

    Args:
      dry_run: the run with its compiled step.
      usage: the memory of the configured batch size.

    Returns:
      The batch size; None if the limit is unknown or memory does not grow with the batch.
    """
    if usage.limit_bytes is None:
        return None
    experiment = dry_run.experiment
    size, multiple = experiment.batch_sizes.train, batch_size_multiple(experiment)
    other_size = size // 2 // multiple * multiple or 2 * size
    slope = (usage.step_bytes - dry_run.step_bytes(other_size)) / (size - other_size)
    if experiment.devices.platform == "cpu":  # all devices share the host's memory
        slope *= len(experiment.devices.local)
    if slope <= 0:
        return None
    spare = usage.limit_bytes - usage.needed_bytes
    return max(0, int(size + spare / slope) // multiple * multiple)
