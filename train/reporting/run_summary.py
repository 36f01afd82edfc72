"""Print the run summary and configuration warnings before training starts."""

from collections.abc import Callable

import jax

from train.config.keys import KEYS
from train.config.registries import LOSSES, OPTIMIZERS, SCHEDULES, TASKS
from train.data.channels import assumes_statistics, mean_and_std
from train.data.class_counts import COUNTS
from train.engine.experiment import BatchSizes, Experiment
from train.engine.intervals import Intervals
from train.engine.optim import schedules
from train.engine.step import TrainState, trainable_params
from train.reporting.console import Console
from train.reporting.data_summary import data_lines
from train.runtime.config_dict import ConfigDict
from train.runtime.formatting import format_percent, pluralize
from train.tasks.ineffective import own_loss_warnings
from train.workdir import run_files

MIN_BATCH_NORM_IMAGES = 8  # fewer are a warning
MAX_INPUT_WAIT = 0.05  # share of the time; more is input-bound
MAX_CHANCE_LOSSES = 5  # an evaluation loss above this multiple of the chance loss is a warning


def print_summary(console: Console, run: Experiment, state: TrainState) -> None:
    """Print data, network, length and learning rate of a run; then notes; warnings at the end."""
    for name, text in (*data_lines(run), *_run_lines(run, state)):
        console.fact(name, text, items=name == "classes")
    if run.config.smoke:
        console.fact("smoke", "a smoke test; its accuracy is meaningless")
    notes, warnings = _remarks(run, state, console.warn)
    for text in notes:
        console.note(text, wraps=True)
    for text in warnings:
        console.warn(text, wraps=True)


def _run_lines(run: Experiment, state: TrainState) -> list[tuple[str, str]]:
    """Return heads and texts of the lines about the network and its training."""
    config, intervals, frozen = run.config, run.intervals, run.step_config.frozen
    trainable = f" ({_size(trainable_params(state.params, frozen)):,} trainable)" * bool(frozen)
    length = intervals.steps_per_epoch, intervals.num_steps
    start = "new" if not state.step else f"continues after step {int(state.step):,}"
    lines = [
        (
            "network",
            f"{config.model.name}, {_size(state.params):,} parameters{trainable},"
            f" {config.model.dtype}",
        ),
        ("devices", f"{run.devices.describe()}, {pluralize(run.batch_sizes.device, 'image')} each"),
        ("length", intervals.describe()),
        ("rate", schedules.describe(config.schedule, *length, run.batch_sizes.train)),
        ("workdir", f"{run.workdir} ({start})"),
    ]
    if run.balance is not None:
        lines.insert(0, ("balance", run.balance.describe()))
    return lines


def _remarks(
    run: Experiment, state: TrainState, warn: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Return notes, and warnings of likely mistakes."""
    config, has_batch_norm = run.config, bool(state.batch_stats)
    notes = []
    if assumes_statistics(config.dataset):
        mean, std = (values[0] for values in mean_and_std(config.dataset))
        notes.append(
            f"dataset.mean and dataset.std are taken as {mean:g} and {std:g} for each channel;"
            " train.statistics measures those of the training images"
        )
    size = len(run.eval_loader), run.model.num_classes
    notes.append(run.step_config.task.describe_left_out(config, *size))
    shown = (finding for finding in run.findings if finding.kind != COUNTS)  # is in a line above
    notes += [finding.text for finding in shown if not finding.is_warning]
    if run.balance is not None:
        notes.append(run.balance.describe_rare(config.batch_size))
    warnings = [finding.text for finding in run.findings if finding.is_warning]
    for text in config_warnings(config, run.intervals, run.batch_sizes, has_batch_norm):
        is_note = text.startswith("note: ")
        (notes if is_note else warnings).append(text.removeprefix("note: "))
    warnings += own_loss_warnings(config, run.model.num_classes)
    images = run.batch_sizes.batch_norm
    sessions = run_files.read_sessions(run.workdir, warn)
    before = (sessions[-1]["batch_norm_images"] or images) if sessions else images
    if has_batch_norm and state.step and before != images:
        warnings.append(
            f"batch norm now averages over {pluralize(images, 'image')}, {before:,} before:"
            " training continues, with slightly different results; sync_batch_norm=True does not"
            " depend on the number of devices"
        )
    return [note for note in notes if note], warnings


def _size(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def config_warnings(
    config: ConfigDict, intervals: Intervals, batch_sizes: BatchSizes, has_batch_norm: bool = True
) -> list[str]:
    """Return warnings about a valid configuration that is probably not intended."""
    if config.smoke:
        return []
    warnings = schedules.warnings(config.schedule, intervals.steps_per_epoch, intervals.num_steps)
    images, micro_batch = batch_sizes.batch_norm, batch_sizes.micro
    if images < MIN_BATCH_NORM_IMAGES and has_batch_norm:
        warnings.append(
            f"batch norm averages over only {pluralize(images, 'image')}"
            + f"; sync_batch_norm=True would use {micro_batch}" * (images < micro_batch)
            + "; each of the grad_accum_steps has its own statistics"
            * (config.grad_accum_steps > 1)
        )
    schedule, optimizer = config.schedule, config.optimizer
    adam = optimizer.name in ("adam", "adamw", "lamb")
    # What own parts use is unknown; own_loss_warnings() examines losses.
    project_loss = TASKS.owner(config.task) is None and LOSSES.owner(config.loss) is None
    milestones = schedule.milestone_epochs or schedule.milestone_steps
    ineffective = {  # keys with no or an unexpected effect
        f"schedule.milestone_epochs and milestone_steps have no effect on"
        f" schedule.name={schedule.name!r}": milestones
        and schedule.name != "step"
        and SCHEDULES.owner(schedule.name) is None,
        f"bce_target_threshold has no effect on loss={config.loss!r}": project_loss
        and config.bce_target_threshold
        and config.loss != "binary_cross_entropy",
        f"focal_gamma has no effect on loss={config.loss!r}": project_loss
        and config.loss != "focal"
        and config.focal_gamma != KEYS["focal_gamma"].default,
        "stop.patience has no effect, since only the end is evaluated (eval.every_epochs=0)": (
            config.stop.patience and not intervals.eval_every
        ),
        "init_head has no effect without init_from": config.init_head != "auto"
        and not config.init_from,
        f"freeze={config.freeze!r} without init_from keeps weights at their random"
        " initialization": config.freeze and not config.init_from,
        f"optimizer.momentum has no effect on optimizer.name={optimizer.name!r}, which has b1": (
            adam and optimizer.momentum != KEYS["optimizer.momentum"].default
        ),
        f"optimizer.b1, b2 and eps have no effect on optimizer.name={optimizer.name!r}": (
            not adam
            and OPTIMIZERS.owner(optimizer.name) is None
            and any(optimizer[k] != KEYS[f"optimizer.{k}"].default for k in ("b1", "b2", "eps"))
        ),
        f"optimizer.nesterov=True turns '{optimizer.name}' into its NAdam form (Dozat)": (
            optimizer.nesterov and adam
        ),
    }
    warnings += [text for text, applies in ineffective.items() if applies]
    epochs = intervals.epoch(intervals.num_steps)
    late = [epoch for epoch in config.dataset.train_size_epochs if epoch >= epochs]
    if late:
        warnings.append(
            f"dataset.train_size_epochs changes the image size at epoch {late[0]:g}, but the run"
            f" ends after {epochs:.4g}"
        )
    return warnings


def print_input_wait(console: Console, share: float, streams: bool) -> None:
    """Print whether the devices or the input pipeline limit the speed.

    Args:
      console: the console.
      share: share of the time that the devices waited.
      streams: whether images are streamed, not in device memory.
    """
    waited = f"devices waited {format_percent(share)} of the time"
    if share < MAX_INPUT_WAIT:
        console.info(f"input pipeline keeps up: {waited}")
    elif not streams:
        console.info(f"{waited} for the next step to be dispatched: the steps are short")
    else:
        console.info(
            f"input-bound: {waited} for images; without that, training would be"
            f" {1 / max(1 - share, 1e-3):.3g} times as fast. More CPU cores or loader.workers help;"
            " for TFDS data, so does train.prepare --resize"
        )


def check_evaluation_loss(console: Console, loss: float, chance: float) -> None:
    """Warn if an evaluation loss is NaN or far above ``chance``, that of uniform guessing."""
    if not loss <= MAX_CHANCE_LOSSES * chance:  # also if it is NaN
        console.warn(
            f"evaluation loss {loss:.4g} is far above {chance:.2g}, the loss of uniform guessing;"
            " the learning rate may be too high, or the batch norm statistics have not settled yet"
        )
