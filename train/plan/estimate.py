"""What a run would need and what would fail, told before it starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from flax_resnet import summarize
from flax_resnet.files import write_atomically
from train.data.datasets import open_source
from train.data.tfds_source import data_dir
from train.engine.devices import make_devices
from train.engine.experiment import Experiment, build_experiment
from train.loop import initial_state
from train.plan.dry_run import (
    DryRun,
    Memory,
    Seconds,
    another_batch_size,
    largest_batch,
    mean_pixels,
)
from train.reporting import curves, run_summary, svg
from train.reporting.console import Console
from train.reporting.plots import Plots
from train.runtime.errors import RunError, UsageError
from train.runtime.files import directory_size, writing
from train.runtime.formatting import format_bytes, format_count, format_duration, pluralize
from train.workdir import run_files

BARS = "▁▂▃▄▅▆▇█"


def plan(config: ml_collections.ConfigDict, path: str, output: str) -> dict[str, Any]:
    """Prints what a run of ``config`` in the workdir ``path`` would need, and gives it.

    Writes pictures into the folder ``output``, and nothing elsewhere. ``problems`` in what it
    gives are sentences that say what would fail, none where nothing would; the rest are counts,
    bytes and seconds, as far as they were found out. Raises RunError where ``output`` cannot
    be written.
    """
    with writing(output):
        os.makedirs(output, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix="trial.", dir=output)
    try:
        problems = told_by(checks(config, path))
        found: dict[str, Any] = {}
        if not problems:
            with telling(problems):
                planned(build_experiment(config, path), output, scratch, found, problems)
        return found | {"problems": problems}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def checks(config: ml_collections.ConfigDict, path: str) -> list[Callable[[], Any]]:
    """What is looked at by itself, so that more than the first problem is told."""
    config.dataset.data_dir = data_dir(config.dataset)
    return [
        lambda: run_files.check(path, config),
        lambda: make_devices(config.parallel).check_batch(
            config.batch_size, config.grad_accum_steps
        ),
        lambda: open_source(config.dataset, config.dataset.train_split),
        lambda: open_source(config.dataset, config.dataset.eval_split),
    ]


def told_by(checks: list[Callable[[], Any]]) -> list[str]:
    """What the checks raise, each said once."""
    problems: list[str] = []
    for check in checks:
        with telling(problems):
            check()
    return list(dict.fromkeys(problems))


@contextlib.contextmanager
def telling(problems: list[str]) -> Iterator[None]:
    """Adds an error that is meant for people to the problems."""
    try:
        yield
    except (UsageError, RunError) as error:
        problems.append(str(error))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        problems.append(f"the device's memory is too small: {TOO_LARGE}")


TOO_LARGE = (
    "choose a smaller config.batch_size, more parts in config.grad_accum_steps, or"
    " config.model.dtype=bfloat16"
)


def planned(
    run: Experiment, output: str, scratch: str, found: dict[str, Any], problems: list[str]
) -> None:
    """Tells of an opened run; fills ``found`` and ``problems`` as it goes."""
    config, intervals = run.config, run.intervals
    console = Console(intervals.num_steps)
    pictures = Plots(output, console.warn)
    state = initial_state(run, None)
    start = int(state.step)
    run_summary.print_summary(console, run, state)
    summary = summarize(run.model, config.dataset.image_size)
    console.info(
        f"net:     {summary.parameters:,} parameters, {format_count(summary.multiply_adds)}"
        " multiply-adds an image"
    )
    console.info(f"found:   the data, in {config.dataset.data_dir}")
    console.info(f"rate:    {schedule_line(run)}")
    panel = curves.schedule_panel(*schedule_points(run))
    pictures.draw("schedule.svg", lambda path: write_atomically(path, svg.document([panel])))
    found |= {
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "steps": intervals.num_steps,
        "steps_per_epoch": intervals.steps_per_epoch,
        "epochs": intervals.epoch(intervals.num_steps),
        "start": start,
        "data_dir": config.dataset.data_dir,
        "device": jax.devices()[0].device_kind,
        "devices": len(run.devices),
    }
    if start >= intervals.num_steps:
        console.info("nothing is left to do: the run is finished, and would only be evaluated")
        return

    console.compiling()
    trial = DryRun(run, state, scratch, console)
    console.compiled()
    found["compile_seconds"] = round(trial.compiling, 2)
    needed = trial.memory()
    if needed.fits:
        trial.pictures(pictures)
        seconds = trial.measure()
        needed = trial.memory()
        tell_time(console, run, trial, seconds, start, found)
        check_disk(run.workdir, directory_size(scratch), config.checkpoint.max_to_keep, problems)
    tell_memory(console, run, needed, found, problems)
    tell_batch(console, run, needed, trial, found)
    console.info(f"look at: {output}/schedule.svg, {output}/samples.png")


def tell_time(
    console: Console,
    run: Experiment,
    trial: DryRun,
    seconds: Seconds,
    start: int,
    found: dict[str, Any],
) -> None:
    """How long a step, an epoch and all that is left would take."""
    intervals = run.intervals
    left = range(start + 1, intervals.num_steps + 1)
    evaluations = sum(map(intervals.evaluates, left))
    saves = sum(map(intervals.saves, left))
    # On CPUs the thread that saves takes its time from the steps.
    on_cpu = run.devices.platform == "cpu"
    save = seconds.save if on_cpu else seconds.save_held_up
    step = max(seconds.step, seconds.input or 0.0) * mean_pixels(run, start)
    loop = step * len(left) + seconds.evaluation * evaluations + save * saves
    epoch = loop / len(left) * intervals.steps_per_epoch
    total = trial.loading + trial.compiling + seconds.compiling_evaluation + loop
    rate = run.batch_sizes.train / seconds.step
    console.info(
        f"speed:   {seconds.step:.3g} s a step, {rate:,.3g} images/s; an evaluation takes"
        f" {seconds.evaluation:.2g} s, a checkpoint {seconds.save:.2g} s"
    )
    if seconds.input is not None:
        alone = run.batch_sizes.train / seconds.input
        bound = "the images" if seconds.input > 0.9 * seconds.step else "the devices"
        console.info(
            f"input:   {alone:,.3g} images/s are decoded where nothing else runs: {bound} set"
            " the pace"
        )
    console.info(
        f"time:    {format_duration(epoch)} an epoch, {format_duration(total)} in all, with"
        f" {pluralize(evaluations, 'evaluation')} and {pluralize(saves, 'checkpoint')}"
    )
    found |= {
        "step_seconds": seconds.step,
        "input_seconds": seconds.input,
        "evaluation_seconds": seconds.evaluation,
        "save_seconds": seconds.save,
        "epoch_seconds": epoch,
        "total_seconds": total,
    }


def tell_memory(
    console: Console, run: Experiment, needed: Memory, found: dict[str, Any], problems: list[str]
) -> None:
    """What is needed and what there is."""
    where = "of this machine's" if run.devices.platform == "cpu" else "of each device's"
    there = "" if needed.limit is None else f"; there are {format_bytes(needed.limit)}"
    console.info(
        f"memory:  {format_bytes(needed.needed)} {where} memory at the peak{there}; the compiled"
        f" step alone holds {format_bytes(needed.step)}"
    )
    found |= {
        "step_bytes": needed.step,
        "needed_bytes": needed.needed,
        "limit_bytes": needed.limit,
    }
    if not needed.fits:
        problems.append(
            f"the run needs {format_bytes(needed.needed)} {where} memory, and there are"
            f" {format_bytes(needed.limit)}: {TOO_LARGE}"
        )


def tell_batch(
    console: Console, run: Experiment, needed: Memory, trial: DryRun, found: dict[str, Any]
) -> None:
    """The largest batch that fits, as far as a straight line tells."""
    other = another_batch_size(run)
    with telling([]):  # which would not fit
        largest = largest_batch(run, needed, trial.other_step)
        found["largest_batch"] = largest
        if largest is None:
            return
        images = run.sampler.num_records
        few = f", more than the {images:,} training images" if largest > images else ""
        console.info(
            f"batch:   up to {largest:,} images fit the memory{few} (a straight line through the"
            f" steps compiled for {run.batch_sizes.train:,} and {other:,}; not tried)"
        )


def check_disk(path: str, checkpoint: int, keep: int, problems: list[str]) -> None:
    """Whether the disk has room for the latest checkpoints, the best, and one that is written."""
    above = os.path.abspath(path)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    there = len(run_files.saved_steps(path))
    wanted, free = checkpoint * max(1, keep + 2 - there), shutil.disk_usage(above).free
    if free < wanted:
        problems.append(
            f"checkpoints in {path!r} need {format_bytes(wanted)} and the disk has"
            f" {format_bytes(free)} free; make room, or choose another --workdir"
            " or a smaller config.checkpoint.max_to_keep"
        )


def schedule_points(run: Experiment, most: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and the learning rate at each, float32 ``(N,)``."""
    steps = np.unique(np.linspace(0, run.intervals.num_steps - 1, most).astype(np.int32))
    rates = jax.vmap(lambda step: jnp.asarray(run.step_config.schedule(step), jnp.float32))(steps)
    return steps / run.intervals.steps_per_epoch, np.asarray(rates)


def schedule_line(run: Experiment, width: int = 40) -> str:
    """The learning rate over the run in one line: ``▁▅█▇▅▃▁ from 0.01 up to 0.1, at last 0``."""
    rates = schedule_points(run, width)[1]
    top = rates.max() or 1.0
    bars = "".join(BARS[round(float(rate / top) * (len(BARS) - 1))] for rate in rates)
    return f"{bars} from {rates[0]:.3g} up to {rates.max():.3g}, at last {rates[-1]:.3g}"
