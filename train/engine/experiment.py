"""A run before its first step: all parts are built and checked, and nothing is written.

Everything that derives from the configuration is computed here, once.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet import ResNet
from flax_resnet.decoding import ImageDecodeError
from flax_resnet.init import abstract_variables
from flax_resnet.own_networks import check_network
from flax_resnet.runs import model_from_config
from train.config.access import flatten
from train.config.own_parts import recipe_of
from train.config.registries import OPTIMIZERS
from train.config.task_defaults import set_task_defaults
from train.data.augment.mixup import check_even
from train.data.class_counts import count_classes_of
from train.data.class_names import check_classes
from train.data.datasets import check_folder, describe_substitute, paths
from train.data.findings import UNBALANCED, inspect_data
from train.data.loader import DataLoader
from train.data.preprocessing import make_preprocessing
from train.data.sampler import BalancedSampler, EpochSampler, ProcessShard
from train.data.skipped import Finding
from train.data.source import DataSource
from train.data.sources.given_source import GIVEN
from train.data.splits import evaluation_split
from train.engine.batch_norm_checks import check_batch_norm
from train.engine.devices import Pmap, ShardMap, make_devices
from train.engine.intervals import Intervals, make_intervals
from train.engine.optim.freezing import frozen_modules
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.own_checks import check_optimizer
from train.engine.optim.schedules import make_schedule, same_rates
from train.engine.pretrained import find_weights, follow_preprocessing, initial_variables
from train.engine.step import AXIS, StepConfig, trainable_params
from train.runtime import distributed, limits
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError
from train.tasks.base import BaseTask
from train.tasks.class_balance import BALANCED
from train.tasks.configured import make_task
from train.workdir import environment, run_files

# Keys that may differ between processes, since they depend on the machine.
_LOCAL_KEYS = (
    "dataset.data_dir",
    "dataset.labels",
    "loader.threads",
    "loader.workers",
    "loader.max_corrupt_fraction",
    "compilation_cache",
)


Sources = tuple[DataSource, DataSource]  # for training and evaluation


@dataclass(frozen=True)
class BatchSizes:
    """Batch sizes in images.

    Attributes:
      train: global training batch.
      device: images per device in a training step.
      micro: global micro-batch: one gradient accumulation step on all devices.
      batch_norm: images over which batch norm computes its statistics.
      eval: global evaluation batch, a multiple of the number of devices.
    """

    train: int
    device: int
    micro: int
    batch_norm: int
    eval: int


@dataclass(frozen=True)
class Experiment:
    """All parts of a run that do not change while it trains.

    Attributes:
      config: the configuration, with the absolute path of ``dataset.data_dir``.
      workdir: the run's folder.
      devices: all devices of all processes.
      train_loader, eval_loader: the data; opened, but not decoded.
      sampler: the records of each training batch.
      intervals: length of the run, steps per epoch, and when to evaluate, save and log.
      batch_sizes: numbers of images.
      model: the network.
      step_config: everything that the steps need apart from arrays.
      balance: how the training loss weights the classes, see ``BaseTask.make_balance``; None: as
        the training images.
      resumes: whether ``workdir`` has checkpoints, from which the run continues.
      variables: pretrained variables of ``init_from``; None without, or if the run resumes.
    """

    config: ConfigDict
    workdir: str
    devices: Pmap | ShardMap
    train_loader: DataLoader
    eval_loader: DataLoader
    sampler: EpochSampler
    intervals: Intervals
    batch_sizes: BatchSizes
    model: ResNet
    step_config: StepConfig
    balance: Any
    resumes: bool
    variables: dict[str, Any] | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` in evaluation, and in training unless ``train_sizes`` is set."""
        return self.train_loader.image_shape

    @cached_property
    def findings(self) -> list[Finding]:
        """What a user should know of the data. The first access takes up to a few seconds."""
        sources = self.train_loader.source, self.eval_loader.source
        findings = [*count_classes_of(*sources), *inspect_data(*sources)]
        findings += [*self.train_loader.findings(), *self.eval_loader.findings()]
        if self.balance is not None:  # the advice was taken
            findings = [finding for finding in findings if finding.kind != UNBALANCED]
        dataset = self.config.dataset
        substitute = describe_substitute(sources[1], evaluation_split(dataset))
        if substitute and dataset.name != GIVEN:
            findings.append(Finding("split", 1, (sources[1].split,), substitute, False))
        return findings


def build_experiment(
    config: ConfigDict, workdir: str, sources: Sources | None = None
) -> Experiment:
    """Open the data, and build the model and everything that its steps need.

    Makes ``config.dataset.data_dir`` and ``labels`` absolute, since evaluation may run elsewhere,
    and gives keys that follow the preprocessing of ``config.init_from`` their values.
    ``sources`` are the data for training and evaluation; default: those of ``config.dataset``.

    Raises:
      UsageError, RunError: anything is wrong; nothing was written, decoded or compiled.
    """
    recipe_of(config)  # registers its parts again if another recipe replaced them
    set_task_defaults(config)
    dataset = config.dataset
    dataset.update(paths(dataset))
    check_limits(config, workdir)
    resumes = run_files.check(workdir, config)
    if sources is None:
        check_folder(dataset)
    weights = None if resumes else find_weights(config)
    if weights is not None:
        follow_preprocessing(config, weights)
    devices = make_devices(config.parallel)
    devices.check_batch(config.batch_size, config.grad_accum_steps)
    shard = ProcessShard(distributed.process_index(), distributed.process_count())
    train_source, eval_source = sources or (None, None)
    train_loader = DataLoader(
        config, dataset.train_split, training=True, shard=shard, source=train_source
    )
    gib = train_loader.cached_gib
    eval_loader = DataLoader(
        config, evaluation_split(dataset), False, shard, cached_gib=gib, source=eval_source
    )
    batch_sizes = make_batch_sizes(config, len(devices), len(eval_loader))
    check_classes(train_loader.source, eval_loader.source)
    if resumes and run_files.find_description(workdir) is not None:  # otherwise it is rewritten
        run_files.check_data(workdir, train_loader, eval_loader)
    class_names = train_loader.source.class_names
    task = make_task(config, count_outputs(config, len(class_names)))
    model = make_model(config, len(class_names), train_loader.image_shape, task.per_pixel)
    for loader in (train_loader, eval_loader):
        task.check_labels(config, loader.source)
    sampler = make_sampler(config, train_loader.source)
    intervals = make_intervals(config, sampler)
    if resumes:
        check_length(config, workdir, intervals)
    task.check_split(config, eval_loader.source, batch_sizes.eval, model.num_classes)
    balance = task.make_balance(config, train_loader.source)
    length = intervals.steps_per_epoch, intervals.num_steps
    step_config = make_step_config(config, model, *length, task.balanced(balance))
    check_batch_norm(config, step_config, train_loader.smallest_shape, batch_sizes.batch_norm)
    if step_config.augment.mix:
        check_even(batch_sizes.device)
    variables = None
    if weights is not None:
        shape = train_loader.image_shape
        variables = initial_variables(config, model, shape, class_names, weights)
    return Experiment(
        config=config,
        workdir=workdir,
        devices=devices,
        train_loader=train_loader,
        eval_loader=eval_loader,
        sampler=sampler,
        intervals=intervals,
        batch_sizes=batch_sizes,
        model=model,
        step_config=step_config,
        balance=balance,
        resumes=resumes,
        variables=variables,
    )


def check_limits(config: ConfigDict, workdir: str) -> None:
    """Raise RunError for a limit of the machine that the run would exceed, whatever its data."""
    workers = config.loader.workers
    for problem in (
        limits.name_encoding(workdir, "the workdir"),
        limits.temporary_folder(),
        limits.open_files(workers),
        limits.processes(workers),
        limits.semaphores(workers),
    ):
        if problem:
            raise RunError(problem)


def check_length(config: ConfigDict, workdir: str, intervals: Intervals) -> None:
    """Raise UsageError if a run of this length would not have trained the saved steps alike."""
    trained = run_files.read_config(workdir)
    before, now = make_intervals(trained, intervals.sampler).num_steps, intervals.num_steps
    saved = run_files.saved_steps(workdir)[-1]
    if now < saved:
        reason = f"it is saved after {saved:,} already"
    elif now != before and not same_rates(
        config.schedule, intervals.steps_per_epoch, (before, now), saved
    ):
        reason = (
            "with that length its learning rates would have been others from the start"
            f" (schedule.name={config.schedule.name!r})"
        )
    else:
        return
    raise UsageError(
        f"{workdir!r} holds a run of {before:,} steps, which cannot become one of {now:,}:"
        f" {reason}. Use the same configuration to resume it, or"
        f" {run_files.advise_new_run(workdir)}"
    )


def make_batch_sizes(config: ConfigDict, num_devices: int, eval_images: int) -> BatchSizes:
    """Return the batch sizes of a configuration on a number of devices.

    That of evaluation is limited to ``eval_images``, the size of the split.
    """
    micro = config.batch_size // config.grad_accum_steps
    evaluation = min(config.eval.batch_size or max(1, micro), eval_images)
    return BatchSizes(
        train=config.batch_size,
        device=config.batch_size // num_devices,
        micro=micro,
        batch_norm=micro if config.sync_batch_norm else micro // num_devices,
        eval=evaluation + -evaluation % num_devices,
    )


def count_outputs(config: ConfigDict, num_classes: int) -> int:
    """Return the number of outputs of the head for data with ``num_classes`` classes.

    Raises:
      UsageError: ``config.model.num_classes`` is smaller.
    """
    outputs = config.model.num_classes or num_classes
    if outputs < num_classes:
        raise UsageError(
            f"config.model.num_classes={outputs} is too small:"
            f" {config.dataset.name} has {num_classes} classes"
        )
    return outputs


def make_model(
    config: ConfigDict,
    num_classes: int,
    image_shape: tuple[int, int, int] | None = None,
    per_pixel: bool = False,
) -> ResNet:
    """Build the network of ``config.model``; raise UsageError for an invalid one.

    Args:
      config: the configuration.
      num_classes: number of classes of the data.
      image_shape: of the images with which own parts are checked; None: they are not.
      per_pixel: whether the outputs must be those of every pixel.
    """
    outputs = count_outputs(config, num_classes)
    axis_name = AXIS if config.sync_batch_norm else None
    try:
        model = model_from_config(flatten(config), outputs, axis_name)
        if image_shape is not None:
            check_network(model, config.model.name, image_shape, outputs, per_pixel)
        return model
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def make_sampler(config: ConfigDict, source: DataSource) -> EpochSampler:
    """Build the sampler of the training images; raise UsageError for an invalid batch size."""
    settings = config.batch_size, config.seed, config.augment.repeated_aug
    if config.loader.sampling == BALANCED:
        return BalancedSampler(source.all_labels(), *settings)
    return EpochSampler(len(source), *settings)


def make_step_config(
    config: ConfigDict,
    model: ResNet,
    steps_per_epoch: int,
    num_steps: int,
    task: BaseTask | None = None,
) -> StepConfig:
    """Build everything that the steps need apart from arrays.

    Args:
      config: the configuration.
      model: the network.
      steps_per_epoch: training steps per epoch.
      num_steps: length of the run.
      task: what the network learns; default: made from the configuration, without weights of the
        classes.

    Raises:
      UsageError: keys exclude each other or cannot be used with the model or the images.
    """
    schedule = make_schedule(config.schedule, steps_per_epoch, num_steps, config.batch_size)
    task = make_task(config, model.num_classes) if task is None else task
    preprocessing = make_preprocessing(config.dataset)
    optimizer, frozen = make_optimizer(config.optimizer, schedule), ()
    is_own = OPTIMIZERS.owner(config.optimizer.name) is not None
    if config.freeze or is_own:
        params = parameter_shapes(model, preprocessing.shape)
        frozen = frozen_modules(config.freeze, list(params)) if config.freeze else ()
        if is_own:
            check_optimizer(config.optimizer.name, optimizer, trainable_params(params, frozen))
    return StepConfig(
        model=model.clone(frozen=frozen),
        optimizer=optimizer,
        schedule=schedule,
        augment=task.make_augment(config),
        task=task,
        mean=preprocessing.mean,
        std=preprocessing.std,
        seed=config.seed,
        grad_accum_steps=config.grad_accum_steps,
        ema_decay=config.ema.decay,
        frozen=frozen,
        evaluate_ema=config.eval.use_ema,
        skip_nonfinite=config.on_nonfinite == "skip",
    )


def parameter_shapes(model: ResNet, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return shapes and dtypes of the parameters: ``stem_conv``, ``stage1_block1``, …, ``head``."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return abstract_variables(model, images)["params"]


def check_same_in_all_processes(config: ConfigDict, *loaders: DataLoader) -> None:
    """Raise RunError unless all processes would compute the same. All of them must call this."""
    distributed.assert_equal("version of the code", environment.code_digest())
    distributed.assert_equal("versions of the libraries", environment.versions())
    keys = flatten(config)
    distributed.assert_equal(
        "configuration", {name: v for name, v in keys.items() if name not in _LOCAL_KEYS}
    )
    for loader in loaders:
        distributed.assert_equal(f"{loader.source.split!r} data", _fingerprint(loader.source))
    if config.loader.sampling == BALANCED:
        labels = zlib.crc32(np.ascontiguousarray(loaders[0].source.all_labels()))
        distributed.assert_equal(f"labels of {loaders[0].source.split!r}", labels)


def _fingerprint(source: DataSource) -> dict[str, Any]:
    """Return facts that identify a split, from a few of its records."""
    last = len(source) - 1
    sample = sorted({0, last // 3, last // 2, last})
    checksums = {source.record_name(index): _checksum(source, index) for index in sample}
    weights = None if source.weights is None else zlib.crc32(np.ascontiguousarray(source.weights))
    facts = {"images": len(source), "classes": source.class_names, "records": checksums}
    return facts | {"weights": weights}


def _checksum(source: DataSource, index: int) -> int:
    try:
        return zlib.crc32(source[index][0])
    except (OSError, ImageDecodeError):
        return 0  # it may be a corrupt record, which is reported when it is decoded
