"""Evaluation of a checkpoint of a finished run, on its own or on other data."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tqdm

from flax_resnet.calibration import Calibration
from flax_resnet.dense.views import make_views
from train.config.keys import KEYS
from train.config.task_defaults import learns_several_labels
from train.data.canvas import SHRUNK
from train.data.corrupt_records import CorruptRecords
from train.data.datasets import describe_substitute
from train.data.label_sets import SEPARATOR
from train.data.loader import DataLoader
from train.data.sampler import ProcessShard
from train.data.tiled_masks import TiledMasks, tile_pictures
from train.engine.devices import make_devices
from train.engine.evaluation import Evaluated, evaluate, evaluated_weights, make_eval_step
from train.engine.experiment import (
    check_same_in_all_processes,
    make_batch_sizes,
    make_model,
    make_step_config,
)
from train.engine.other_data import OtherData
from train.engine.predictions import PredictionCollector
from train.engine.step import StepConfig, abstract_state, evaluated_variables
from train.engine.stored_thresholds import StoredThresholds, find_calibration, read_thresholds
from train.engine.tile_collector import TileCollector
from train.runtime import distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError, note, print_line
from train.runtime.formatting import run_name
from train.runtime.host import core_count, decoding_threads, max_images
from train.tasks.base import BaseTask
from train.tasks.metrics import MAX_PROBABILITIES
from train.workdir.checkpoints import Checkpoints, restore_on_all
from train.workdir.run_files import best_by, check_data, read_config, read_description


@dataclass(frozen=True)
class EvaluationOptions:
    """How a run is evaluated.

    Attributes:
      ema: whether to evaluate the moving average; None: as configured for the run.
      tta: test-time augmentation: ``"flip"`` averages each image and its mirror image: the logits
        of images, the probabilities of pixels.
      scales: of the images, over which the probabilities of pixels are averaged.
      window: whether images larger than the canvas are evaluated at their own size in overlapping
        windows of the canvas, if every pixel has a class, instead of shrunk.
      use_thresholds: whether what is stored with the checkpoint is used: the thresholds that
        decide about the classes of images that may have several (otherwise 0.5), and the
        calibration.
      keep_probabilities: whether the predictions include the probabilities of all classes even if
        they are more than ``MAX_PROBABILITIES``.
      keep_logits: whether they include the logits.
      keep_features: whether they include the features before the head.
    """

    ema: bool | None = None
    tta: str = ""
    scales: Sequence[float] = (1.0,)
    window: bool = False
    use_thresholds: bool = True
    keep_probabilities: bool = False
    keep_logits: bool = False
    keep_features: bool = False

    def check(self, task: BaseTask, config: ConfigDict, path: str) -> None:
        """Raise UsageError if the task of the run in ``path`` has no such evaluation."""
        reasons = {
            "--calibrate and --decide are for one or several classes per image": (
                not self.use_thresholds and not task.probabilities
            ),
            "--features needs one vector per image": self.keep_features and not task.has_features,
            "--scales is for networks with outputs of every pixel": (
                tuple(self.scales) != (1.0,) and not task.per_pixel
            ),
            "--window is for networks with outputs of every pixel": (
                self.window and not task.per_pixel
            ),
        }
        for reason, applies in reasons.items():
            if applies:
                raise UsageError(f"{reason}; the run in {path!r} has task={config.task!r}")


def limit_to_machine(loader: ConfigDict) -> None:
    """Limit ``config.loader`` of a run that may have been trained on a larger machine."""
    loader.threads = min(loader.threads, decoding_threads())
    loader.workers = min(loader.workers, core_count())
    # Each image is used once, so that caching saves nothing.
    loader.device_cache_gib = min(loader.device_cache_gib, KEYS["loader.device_cache_gib"].default)
    if loader.cache_on_device == "always":
        loader.cache_on_device = "auto"


def evaluate_run(
    path: str,
    step: int | str,
    options: EvaluationOptions = EvaluationOptions(),
    other: OtherData = OtherData(),  # noqa: B008 (a constant)
) -> Evaluated:
    """Evaluate a checkpoint of the run in ``path``. All processes must call this.

    Args:
      path: the workdir.
      step: a number, ``"last"`` or ``"best"``.
      options: how to evaluate it.
      other: data to evaluate on; by default the run's evaluation split.

    Raises:
      UsageError, RunError: there is no such run, checkpoint or data, or the data have other
        classes.
    """
    with distributed.raise_if_any_failed():
        config = _read_config(path, options)
        loader, step_config, substitute = _open(path, config, other, options)
    check_same_in_all_processes(config, loader)
    if distributed.is_primary():
        _print_findings(loader, substitute, options)
    with distributed.raise_if_any_failed():
        checkpoints = Checkpoints(path, warn=_warn, best_by=best_by(config))
    with checkpoints:
        state = restore_on_all(checkpoints, step, abstract_state(step_config, loader.image_shape))
    with distributed.raise_if_any_failed():
        stored, calibration = _read_stored(path, state, config, step_config.task, options)
    if stored is not None and stored.were_chosen_on(loader.source) and distributed.is_primary():
        note("half of these images chose the stored thresholds; new ones may give a lower F1")

    result, predictions = _compute(config, step_config, state, loader, stored, options)
    result = {"split": loader.source.split} | result | {"step": int(state.step)}
    if other.is_other_dataset:
        result["dataset"] = loader.source.name
    if options.tta:
        result["tta"] = options.tta
    if tuple(options.scales) != (1.0,):
        result["scales"] = list(options.scales)
    if stored is not None:
        result["thresholds"] = stored.by_class
    variables = evaluated_variables(step_config, state)
    about = loader, config, step_config.model, variables, run_name(path), calibration
    return Evaluated(result, predictions, *about)


def _read_config(path: str, options: EvaluationOptions) -> ConfigDict:
    """Return the configuration of a run, changed as the options say."""
    config = read_config(path)
    if options.ema and not config.ema.decay:
        raise UsageError(f"the run in {path!r} has no moving average: its ema.decay is 0")
    config.eval.use_ema = config.eval.use_ema if options.ema is None else options.ema
    limit_to_machine(config.loader)
    return config


def _open(
    path: str, config: ConfigDict, other: OtherData, options: EvaluationOptions
) -> tuple[DataLoader, StepConfig, str]:
    """Return the split, not loaded, the configuration of steps, and which split is replaced."""
    separator = SEPARATOR if learns_several_labels(config) else ""
    name = other.apply(config.dataset, separator)
    if config.dataset.name == "table":  # which may lack some classes
        config.dataset.class_names = read_description(path).class_names
    shard = ProcessShard(distributed.process_index(), distributed.process_count())
    loader = DataLoader(config, name, training=False, shard=shard)
    check_data(path, loader, other_data=other.is_other_dataset)
    model = make_model(config, len(loader.source.class_names))
    # The schedule is not used, but the state includes that of the optimizer.
    step_config = make_step_config(config, model, steps_per_epoch=1, num_steps=1)
    step_config.task.check_labels(config, loader.source)
    options.check(step_config.task, config, path)
    return loader, step_config, describe_substitute(loader.source, name)


def _print_findings(loader: DataLoader, substitute: str, options: EvaluationOptions) -> None:
    """Print what is remarkable about the data."""
    if substitute:
        note(substitute)
    findings = [] if loader.source.table is None else list(loader.source.table.findings())
    for finding in (*findings, *loader.findings()):
        if options.window and finding.kind == SHRUNK:
            continue
        (_warn if finding.is_warning else note)(finding.text)


def _warn(text: str) -> None:
    process = "" if distributed.is_primary() else f" of process {distributed.process_index()}"
    print_line(f"warning{process}: {text}", sys.stderr)


def _read_stored(
    path: str, state: Any, config: ConfigDict, task: BaseTask, options: EvaluationOptions
) -> tuple[StoredThresholds | None, Calibration | None]:
    """Return the thresholds and the calibration that are stored with a checkpoint."""
    stored, calibration = None, None
    stored_with = path, int(state.step), evaluated_weights(config)
    if task.has_thresholds and options.use_thresholds:
        stored = read_thresholds(*stored_with)
    if task.probabilities and options.use_thresholds:
        calibration = find_calibration(*stored_with, task.probabilities, _warn)
    return stored, calibration


def _compute(
    config: ConfigDict,
    step_config: StepConfig,
    state: Any,
    loader: DataLoader,
    stored: StoredThresholds | None,
    options: EvaluationOptions,
) -> tuple[dict[str, Any], Any]:
    """Return the metrics and the predictions of all examples, of which each counts once."""
    task, classes = step_config.task, step_config.model.num_classes
    collector = PredictionCollector(task, classes, None if stored is None else stored.raw)
    if options.window:
        with distributed.raise_if_any_failed():
            tiled, loader = _in_tiles(config, loader)
        collector = TileCollector(task, classes, tiled)
    # Decoding all images that are cached takes long, so it comes after all checks.
    with distributed.raise_if_any_failed():
        loader.load(CorruptRecords(warn=_warn))
    devices = make_devices(config.parallel)
    # The run may have been trained on a larger machine.
    pixels = round(math.prod(loader.image_shape[:2]) * max(1, *options.scales) ** 2)
    limit = min(distributed.allgather(max_images(pixels)))
    images = min(len(loader), max(limit, len(devices)))
    batch_size = make_batch_sizes(config, len(devices), images).eval
    views = make_views(options.scales, flip=options.tta == "flip")
    keep_probabilities = (
        options.keep_probabilities
        or len(loader) * classes <= MAX_PROBABILITIES
        or task.keeps_probabilities(config, len(loader), classes)
    )
    keeps = keep_probabilities, options.keep_logits, options.keep_features
    compiled = make_eval_step(devices, step_config, loader, views, *keeps)
    result = evaluate(
        task,
        devices,
        compiled,
        devices.replicate(state),
        devices.replicate(loader.cached),
        loader,
        batch_size,
        collect=collector.add,
        summarize=collector.summarize,
        progress=_progress_bar(loader, batch_size),
    )
    if isinstance(collector, TileCollector):
        result |= collector.count_pictures()
    return result, collector.predictions()


def _in_tiles(config: ConfigDict, loader: DataLoader) -> tuple[TiledMasks, DataLoader]:
    """Return the tiles of the pictures, and a loader of them."""
    size, fill = loader.image_shape[:2], loader.preprocessing.fill
    tiled = tile_pictures(loader.source, size, fill)
    split, shard = loader.source.split, loader.shard
    return tiled, DataLoader(config, split, training=False, shard=shard, source=tiled)


def _progress_bar(loader: DataLoader, batch_size: int) -> Callable:
    """Return a wrapper of batches, which on a terminal shows a bar if they take over a second."""
    return partial(
        tqdm.tqdm,
        desc=f"evaluating {loader.source.split}",
        total=-(-len(loader) // batch_size),
        unit=" batches",
        delay=1,
        leave=False,
        disable=not distributed.is_primary() or not sys.stderr.isatty(),
    )
