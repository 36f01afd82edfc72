"""The beginning of a run, elsewhere: its own loop for some steps, to see what these need.

Everything is the run's: its data, its compiled step, its evaluation and its saving. Only the
folder is another one, and what was learned is thrown away.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from train.data.prefetch import Prefetcher
from train.engine.experiment import Experiment
from train.engine.step import TrainState
from train.loop import Loop, first_images
from train.plan import memory
from train.reporting.console import Console
from train.reporting.plots import Plots
from train.runtime.signals import StopRequest
from train.workdir.checkpoints import Checkpoints

WARM_UP = 2  # calls before the clock starts: batches that were made ahead, cold caches
SECONDS = 6.0  # to time steps for
MOST_STEPS = 400
FEWEST_RESULTS = 3  # of an evaluation, to time it by
MOST_SAVES = 3
_PER_IMAGE = ("record", "image", "label")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes. ``step`` is what the compiled step holds on each device, ``needed`` what the run
    needs at its peak, of the host's memory on CPUs and of each device's elsewhere, ``limit``
    what there is (None: not known).
    """

    step: int
    needed: int
    limit: int | None

    @property
    def fits(self) -> bool:
        return self.limit is None or self.needed <= self.limit


@dataclasses.dataclass(frozen=True)
class Seconds:
    """What was measured, in seconds.

    ``step`` of the largest images, as the loop does it with its input; ``input`` of a batch
    from the input pipeline alone, None where the data lie in memory or the run has too few
    steps; ``evaluation`` of the whole
    split; ``save`` of a checkpoint and ``save_held_up`` of the part of it that steps wait for.
    """

    step: float
    input: float | None
    evaluation: float
    save: float
    save_held_up: float
    compiling_evaluation: float


class DryRun:
    """A run's loop in the folder ``scratch``; compiles the step. Call its methods in order.

    Raises what the run itself would raise.
    """

    def __init__(self, run: Experiment, state: TrainState, scratch: str, console: Console):
        self.run, self.scratch = dataclasses.replace(run, workdir=scratch), scratch
        began = time.monotonic()
        self.loop = Loop(self.run, state, None, console, None, StopRequest())
        self.loop.start = max(self.loop.start, largest_images(run, self.loop.start))
        self.batch = next(iter(self.loop.batches()))
        self.loading = time.monotonic() - began
        self._jitted, began = self.loop.train_step, time.monotonic()
        self._compiled = self._compile(self.run.devices.split(self.batch))
        self.compiling = time.monotonic() - began
        self._held = memory.resident()
        self._state = jax.tree.leaves(state)

    def memory(self) -> Memory:
        """What the run needs at its peak, from what its step was compiled to, and from what
        was held so far: the more, the later it is asked.
        """
        step, local = memory.of_step(self._compiled), self.run.devices.local
        # Batches wait for the step, and those of steps in flight are not given back yet.
        ahead = 7 * memory.of_arrays(self.batch) // len(local)
        if self.run.devices.platform != "cpu":
            held = (local[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
            limit = memory.device_limit(local[0])
            return Memory(step.total, max(step.total + ahead, held), limit)
        # On a CPU all is the process's memory: what the libraries, the compiler and the arrays
        # have taken, and to save, the state, which is copied twice and read back.
        state = sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in self._state)
        needed = self._held + len(local) * (step.besides + ahead) + 3 * int(state)
        return Memory(step.total, max(needed, memory.peak()), memory.host_limit())

    def other_step(self, batch_size: int) -> int:
        """Bytes of the step that is compiled for another batch size, on each device."""
        parts = {
            name: np.resize(array, (batch_size, *array.shape[1:])) if name in _PER_IMAGE else array
            for name, array in self.batch.items()
        }
        return memory.of_step(self._compile(self.run.devices.split(parts))).total

    def pictures(self, pictures: Plots) -> None:
        """Draws the first images, as the run does."""
        pictures.draw_samples(lambda: first_images(self.run))

    def measure(self) -> Seconds:
        """Does some steps, a part of an evaluation and a save, and gives their times."""
        loop = self.loop
        loop.train_step = self._compiled
        loop.compiled_shapes = jax.tree.map(np.shape, self.run.devices.split(self.batch))
        step = self._steps()
        fed = None if self.run.train_loader.cached_on_device else self._input()
        compiling, evaluation = self._evaluation()
        left = range(loop.start + 1, loop.end + 1)
        saves = sum(map(self.run.intervals.saves, left))
        on_cpu = self.run.devices.platform == "cpu"
        save, held_up = self._save(min(MOST_SAVES, saves) if on_cpu else 0)
        return Seconds(step, fed, evaluation, save, held_up, compiling)

    def _compile(self, batch: Any) -> Any:
        loop = self.loop
        return self._jitted.lower(
            loop.state, loop.train_data, batch, loop.stopping.flag()
        ).compile()

    def _steps(self) -> float:
        """Seconds a step, in the steady state."""
        loop, done = self.loop, 0
        left = loop.end - loop.start
        calls = self.run.intervals.calls(loop.start, loop.steps_per_call)
        warm_up = WARM_UP if left > 2 * WARM_UP * loop.steps_per_call else 0
        with Prefetcher(loop.batches(), self.run.devices.split) as feed:
            for call in itertools.islice(calls, warm_up):
                loop.step(feed, call)
            jax.block_until_ready(loop.state)
            began = time.monotonic()
            for call in calls:
                loop.step(feed, call)
                done += len(call)
                if time.monotonic() - began > SECONDS or done >= MOST_STEPS:
                    break
            jax.block_until_ready(loop.state)
            return (time.monotonic() - began) / done

    def _input(self) -> float | None:
        """Seconds a batch, of the input pipeline alone; None where too few batches are left."""
        with Prefetcher(self.loop.batches(), self.run.devices.split) as feed:
            for _ in range(WARM_UP):
                next(feed, None)
            done, began = 0, time.monotonic()
            for batch in feed:
                jax.block_until_ready(batch)
                done += 1
                if time.monotonic() - began > SECONDS / 2:
                    break
            return (time.monotonic() - began) / done if done else None

    def _evaluation(self) -> tuple[float, float]:
        """Seconds until the first batch is compiled, and of an evaluation after that."""
        loop = self.loop
        began = time.monotonic()
        loop.evaluate(loop.start, lambda _: True)
        compiling, began = time.monotonic() - began, time.monotonic()
        times: list[float] = []

        def give_up(finished: Any) -> bool:
            if finished is not None:
                times.append(time.monotonic() - began)
            return len(times) >= FEWEST_RESULTS and times[-1] > SECONDS

        if loop.evaluate(loop.start, give_up) is not None:
            return compiling, time.monotonic() - began
        batch = self.run.batch_sizes.eval
        batches = -(-len(self.run.eval_loader) // batch)
        return compiling, times[-1] / len(times) * batches

    def _save(self, rounds: int) -> tuple[float, float]:
        """Seconds of a save, and those in which no step can run.

        Then saves ``rounds`` times more, with a step beside each, as the run does: what saving
        takes of a process's memory is not all given back, and adds up for some saves.
        """
        run, loop = self.run, self.loop
        with (
            Checkpoints(self.scratch, run.config.checkpoint.max_to_keep) as checkpoints,
            Prefetcher(loop.batches(), run.devices.split) as feed,
        ):
            began = time.monotonic()
            checkpoints.save(run.devices.fetch(loop.state))
            held_up = time.monotonic() - began
            checkpoints.wait()
            whole = time.monotonic() - began
            for number, call in enumerate(run.intervals.calls(loop.start, loop.steps_per_call)):
                if number > rounds:
                    break
                loop.step(feed, call)
                if number < rounds:
                    checkpoints.save(run.devices.fetch(loop.state))
            jax.block_until_ready(loop.state)
            return whole, held_up


def largest_images(run: Experiment, start: int) -> int:
    """The first step from ``start`` on whose images are the largest of those to come."""
    per_epoch, end = run.intervals.steps_per_epoch, run.intervals.num_steps

    def size(step: int) -> int:
        return run.train_loader.sizes.at(step / per_epoch)

    if not run.train_loader.sizes.train_sizes or start >= end:
        return start
    return max(range(start, end), key=size)


def mean_pixels(run: Experiment, start: int) -> float:
    """Pixels of the images to come, as a mean share of the largest ones'."""
    per_epoch, end = run.intervals.steps_per_epoch, run.intervals.num_steps
    if not run.train_loader.sizes.train_sizes or start >= end:
        return 1.0
    sizes = [run.train_loader.sizes.at(step / per_epoch) for step in range(start, end)]
    return float(np.mean(np.square(sizes)) / max(sizes) ** 2)


def batches_between(run: Experiment) -> int:
    """What a batch size has to be a multiple of."""
    parts = len(run.devices) * run.config.grad_accum_steps
    return int(
        np.lcm(parts * (2 if run.step_config.augment.mix else 1), run.config.augment.repeated_aug)
    )


def another_batch_size(run: Experiment) -> int:
    """About half of the batch, or twice where it cannot be halved."""
    unit, size = batches_between(run), run.batch_sizes.train
    half = size // 2 // unit * unit
    return half or 2 * size


def largest_batch(run: Experiment, needed: Memory, other: Callable[[int], int]) -> int | None:
    """The largest batch that fits the memory: a straight line through two batch sizes.

    ``other`` gives the bytes of the step at another size, see :meth:`Trial.other_step`. None
    where the limit is not known, or memory does not grow with the batch.
    """
    if needed.limit is None:
        return None
    size, unit = run.batch_sizes.train, batches_between(run)
    second = another_batch_size(run)
    slope = (needed.step - other(second)) / (size - second)
    if run.devices.platform == "cpu":
        slope *= len(run.devices.local)
    if slope <= 0:
        return None
    return max(0, int(size + (needed.limit - needed.needed) / slope) // unit * unit)
