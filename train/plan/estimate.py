"""Estimate of a run's memory and time, and of everything that would fail, before it starts."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet import summarize
from flax_resnet.files import write_atomically
from train.data.datasets import open_source, paths
from train.data.splits import evaluation_split
from train.engine import requirements
from train.engine.devices import make_devices
from train.engine.experiment import Experiment, build_experiment, check_limits
from train.engine.start import initial_state
from train.loop import first_images
from train.plan.dry_run import DryRun, MemoryUsage, Timings, image_sizes, largest_batch
from train.reporting import run_summary
from train.reporting.charts import curves, svg
from train.reporting.console import Console
from train.reporting.plots import Plots
from train.runtime import limits
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.runtime.files import directory_size, writing
from train.runtime.formatting import (
    format_bytes,
    format_count,
    format_duration,
    pluralize,
    run_name,
)
from train.workdir import run_files

BARS = "▁▂▃▄▅▆▇█"
REDUCE_MEMORY = (
    "choose a smaller config.batch_size, a larger config.grad_accum_steps, or"
    " config.model.dtype=bfloat16"
)


def plan(config: ConfigDict, workdir: str, output: str) -> dict[str, Any]:
    """Print and return an estimate of a run.

    Args:
      config: the configuration.
      workdir: the run's folder, which is only read.
      output: folder for the images; nothing is written elsewhere.

    Returns:
      ``problems``, a list of sentences about what would fail, and as far as known: counts, bytes
      and seconds.

    Raises:
      RunError: ``output`` cannot be written.
    """
    with writing(output):
        os.makedirs(output, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix="dry_run.", dir=output)
    problems: list[str] = []
    result: dict[str, Any] = {}
    try:
        for check in independent_checks(config, workdir):
            with collect_error(problems):
                check()
        if not problems:
            with collect_error(problems):
                estimate(build_experiment(config, workdir), output, scratch, result, problems)
        return result | {"problems": list(dict.fromkeys(problems))}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def independent_checks(config: ConfigDict, workdir: str) -> list[Callable[[], Any]]:
    """Return checks that do not depend on each other, so that all of their errors are reported."""
    config.dataset.update(paths(config.dataset))
    return [
        lambda: check_limits(config, workdir),
        lambda: run_files.check(workdir, config),
        lambda: make_devices(config.parallel).check_batch(
            config.batch_size, config.grad_accum_steps
        ),
        lambda: open_source(config.dataset, config.dataset.train_split),
        lambda: open_source(config.dataset, evaluation_split(config.dataset)),
    ]


@contextlib.contextmanager
def collect_error(problems: list[str]) -> Iterator[None]:
    """Append an expected error, including lack of device memory, to ``problems``."""
    try:
        yield
    except (UsageError, RunError) as error:
        problems.append(str(error))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        problems.append(f"the device is out of memory: {REDUCE_MEMORY}")


def estimate(
    experiment: Experiment, output: str, scratch: str, result: dict[str, Any], problems: list[str]
) -> None:
    """Print the estimate of a run, and fill ``result`` and ``problems``."""
    config, intervals = experiment.config, experiment.intervals
    console = Console(intervals.num_steps, trains=False)
    plots = Plots(output, console.warn)
    state = initial_state(experiment, None)
    start = int(state.step)
    run_summary.print_summary(console, experiment, state)
    *size, channels = experiment.step_config.augment.output_shape(experiment.image_shape)
    summary = summarize(experiment.model, tuple(size), channels)
    count = format_count(summary.multiply_adds)
    console.fact("compute", f"{count} multiply-adds per training image")
    console.fact("data in", config.dataset.data_dir or "memory")
    console.fact("rates", schedule_line(experiment))
    panel, name = curves.schedule_panel(*schedule_points(experiment)), run_name(experiment.workdir)
    plots.draw("schedule.svg", lambda path: write_atomically(path, svg.document([panel], name)))
    result |= {
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "steps": intervals.num_steps,
        "steps_per_epoch": intervals.steps_per_epoch,
        "epochs": intervals.epoch(intervals.num_steps),
        "start": start,
        "data_dir": config.dataset.data_dir,
        "findings": [dataclasses.asdict(finding) for finding in experiment.findings],
        "device": jax.devices()[0].device_kind,
        "devices": len(experiment.devices),
    }
    if start >= intervals.num_steps:
        console.note("the run is finished: training would only repeat the evaluation")
        return

    machine_problems = requirements.problems(experiment, state)
    if machine_problems:
        problems += machine_problems
        return
    dry_run = DryRun(experiment, state, scratch, console)
    result["compile_seconds"] = round(dry_run.compile_seconds, 2)
    usage = dry_run.memory()
    if usage.fits:
        with console.stage("drawing samples"):
            plots.draw_samples(lambda: first_images(experiment))
        timings = dry_run.measure()
        usage = dry_run.memory()
        result |= dataclasses.asdict(timings)
        result |= print_time(console, experiment, dry_run, timings, start)
        count = requirements.checkpoint_count(experiment, start)
        if problem := limits.disk_space(experiment.workdir, directory_size(scratch), count):
            problems.append(problem)
    with collect_error(problems):
        result |= dataclasses.asdict(usage)
        print_memory(console, experiment, usage)
    with collect_error([]):  # a larger batch that is out of memory is not a problem
        with console.stage("compiling another batch size"):
            result["largest_batch"] = largest = largest_batch(dry_run, usage)
        if largest is not None:
            images = experiment.sampler.num_records
            all_images = f", more than the {images:,} training images" if largest > images else ""
            console.fact(
                "batch",
                f"up to {largest:,} images should fit{all_images} (linear estimate, not tried)",
            )
    console.fact("pictures", f"{output}/schedule.svg, {output}/samples.png")


def print_time(
    console: Console, experiment: Experiment, dry_run: DryRun, timings: Timings, start: int
) -> dict[str, float]:
    """Print the speed, and return ``epoch_seconds`` and the ``total_seconds`` that remain."""
    intervals, batch_size = experiment.intervals, experiment.batch_sizes.train
    steps = range(start + 1, intervals.num_steps + 1)
    evaluations, saves = (sum(map(f, steps)) for f in (intervals.evaluates, intervals.saves))
    # On a CPU the thread that saves competes with the steps.
    on_cpu = experiment.devices.platform == "cpu"
    save = timings.save_seconds if on_cpu else timings.save_blocking_seconds
    sizes = image_sizes(experiment, start)
    step = max(timings.step_seconds, timings.input_seconds or 0.0)
    step *= float(np.mean(np.square(sizes)) / max(sizes) ** 2)
    loop = step * len(steps) + timings.evaluation_seconds * evaluations + save * saves
    epoch = loop / len(steps) * intervals.steps_per_epoch
    compilation = dry_run.compile_seconds + timings.evaluation_compile_seconds
    total = dry_run.load_seconds + compilation + loop
    console.fact(
        "speed",
        f"{timings.step_seconds:.3g} s per step,"
        f" {batch_size / timings.step_seconds:,.3g} images/s;"
        f" {timings.evaluation_seconds:.2g} s per evaluation,"
        f" {timings.save_seconds:.2g} s per checkpoint",
    )
    if timings.input_seconds is not None:
        input_bound = timings.input_seconds > 0.9 * timings.step_seconds
        console.fact(
            "input",
            f"{batch_size / timings.input_seconds:,.3g} images/s decoded without training;"
            f" the {'input pipeline limits' if input_bound else 'devices limit'} the speed",
        )
    console.fact(
        "time",
        f"{format_duration(epoch)} per epoch, {format_duration(total)} in total, with"
        f" {pluralize(evaluations, 'evaluation')} and {pluralize(saves, 'checkpoint')}",
    )
    return {"epoch_seconds": epoch, "total_seconds": total}


def print_memory(console: Console, experiment: Experiment, usage: MemoryUsage) -> None:
    """Print the memory usage.

    Raises:
      RunError: it exceeds the limit.
    """
    kind = "host memory" if experiment.devices.platform == "cpu" else "memory per device"
    limit = "unknown" if usage.limit_bytes is None else format_bytes(usage.limit_bytes)
    needed = format_bytes(usage.needed_bytes)
    console.fact(
        "memory",
        f"{needed} {kind} at the peak, {limit} available; compiled step"
        f" {format_bytes(usage.step_bytes)}",
    )
    if not usage.fits:
        raise RunError(f"the run needs {needed} {kind}, and {limit} are available: {REDUCE_MEMORY}")


def schedule_points(
    experiment: Experiment, max_points: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and the learning rate at each, float32 ``(N,)``."""
    num_steps, schedule = experiment.intervals.num_steps, experiment.step_config.schedule
    steps = np.unique(np.linspace(0, num_steps - 1, max_points).astype(np.int32))
    rates = jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32))(steps)
    return steps / experiment.intervals.steps_per_epoch, np.asarray(rates)


def schedule_line(experiment: Experiment) -> str:
    """Return the learning rates in one line: ``▁▅█▇▅▃▁ start 0.01, peak 0.1, end 0``."""
    rates = schedule_points(experiment, 40)[1]
    peak = rates.max() or 1.0
    bars = "".join(BARS[round(float(rate / peak) * (len(BARS) - 1))] for rate in rates)
    return f"{bars} start {rates[0]:.3g}, peak {rates.max():.3g}, end {rates[-1]:.3g}"
